//! Large buffers for bulk traffic, kept in a small stock of each thread.
//!
//! A buffer of this size costs the allocator more than the bytes moved through it. A slab belongs to a connection
//! only while it holds bytes; where it is dropped it goes to that thread's stock, or back to the allocator when
//! the stock is full.

use std::cell::RefCell;

/// Size of a slab: sixteen full TLS records.
pub(crate) const SLAB_BYTES: usize = 256 * 1024;

/// Slabs a thread keeps; 1 MiB.
const STOCK_MAX: usize = 4;

thread_local! {
    static STOCK: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// One buffer, of which the first `len` bytes count.
pub(crate) struct Slab {
    bytes: Box<[u8]>,
    len: usize,
}

impl Slab {
    /// One of the thread's stock, or a new one; nothing in it counts yet.
    pub(crate) fn take() -> Self {
        let bytes = STOCK.with_borrow_mut(Vec::pop);
        Self { bytes: bytes.unwrap_or_else(|| vec![0; SLAB_BYTES].into_boxed_slice()), len: 0 }
    }

    /// All of it, to be filled.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    /// Says how many bytes were filled in.
    pub(crate) fn filled(&mut self, len: usize) {
        self.len = len.min(self.bytes.len());
    }
}

impl AsRef<[u8]> for Slab {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        // A thread that is ending has no stock any more; the slab then goes to the allocator.
        let _ = STOCK.try_with(|stock| {
            if let Ok(mut stock) = stock.try_borrow_mut()
                && stock.len() < STOCK_MAX
            {
                stock.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_slab_is_the_next_one_and_the_stock_is_bounded() {
        let mut slab = Slab::take();
        slab.room()[0] = 7;
        slab.filled(1);
        assert_eq!(slab.as_ref(), [7]);
        let address = slab.as_ref().as_ptr();
        drop(slab);
        let again = Slab::take();
        assert!(again.as_ref().is_empty(), "what was in it counts no more");
        assert_eq!(again.bytes.as_ptr(), address);
        let many: Vec<Slab> = (0..3 * STOCK_MAX).map(|_| Slab::take()).collect();
        drop((again, many));
        assert_eq!(STOCK.with_borrow(Vec::len), STOCK_MAX);
    }
}

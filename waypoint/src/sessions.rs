//! The key that proves marks of sessions to be ours (GEP-1619): all replicas of a waypoint need the same, or a client
//! loses its session with the replica that it began at.

use std::fmt;
use std::io::{ErrorKind, Read as _};
use std::path::Path;
use std::sync::Arc;

use ambit_route::session::Seal;
use ambit_runtime::clock;
use aws_lc_rs::hmac;

/// Least bytes of a key.
const KEY_BYTES_MIN: usize = 32;

/// Most bytes of a key.
const KEY_BYTES_MAX: u64 = 4096;

/// The key of sessions.
#[derive(Clone)]
pub struct Sessions(Arc<hmac::Key>);

/// Why a file is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("the key of sessions cannot be read")]
    Read(#[from] std::io::Error),
    /// It has too few bytes, or too many.
    #[error("the key of sessions has {0} bytes; it needs 32 to 4096, such as of `head -c 32 /dev/urandom`")]
    Length(usize),
}

impl Sessions {
    /// The key in a file, all of its bytes; none if there is no such file: the Secret that it comes from is optional.
    ///
    /// # Errors
    /// The file cannot be read, or is too short or too long for a key.
    pub fn read(path: &Path) -> Result<Option<Self>, KeyError> {
        let file = match std::fs::File::open(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let mut bytes = Vec::new();
        file.take(KEY_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        let is_long = u64::try_from(bytes.len()).is_ok_and(|length| length > KEY_BYTES_MAX);
        if bytes.len() < KEY_BYTES_MIN || is_long {
            return Err(KeyError::Length(bytes.len()));
        }
        Ok(Some(Self::of(&bytes)))
    }

    fn of(bytes: &[u8]) -> Self {
        Self(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes)))
    }

    /// Calls `with` with what marks are made and read with now.
    pub(crate) fn sealing<T>(&self, with: impl FnOnce(&Seal<'_>) -> T) -> T {
        let mac = |bytes: &[u8]| {
            let mut short = [0; 16];
            short.copy_from_slice(&hmac::sign(&self.0, bytes).as_ref()[..16]);
            short
        };
        with(&Seal { mac: &mac, now: clock::unix_seconds() })
    }
}

impl Default for Sessions {
    /// A key by chance, that nobody else has.
    fn default() -> Self {
        let mut bytes = [0; KEY_BYTES_MIN];
        // The generator fails only if the library's self-test failed, and then nothing may go on.
        aws_lc_rs::rand::fill(&mut bytes).expect("the cryptographic generator works");
        Self::of(&bytes)
    }
}

impl fmt::Debug for Sessions {
    /// Says nothing about the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

#[cfg(test)]
mod tests {
    use ambit_route::session::tag;
    use ambit_types::ServiceKey;

    use super::{KeyError, Sessions};

    fn tagged(key: &Sessions) -> u64 {
        let service = ServiceKey::new("shop", "web.shop.svc.cluster.local");
        key.sealing(|seal| tag((&service, 80), &"c//Pod/shop/web-0".into(), seal.mac))
    }

    #[test]
    fn who_has_the_key_makes_the_same_marks_and_nobody_else() {
        let key = Sessions::of(&[7; 32]);
        assert_eq!(tagged(&key), tagged(&Sessions::of(&[7; 32])));
        assert_ne!(tagged(&key), tagged(&Sessions::of(&[8; 32])));
        assert_ne!(tagged(&Sessions::default()), tagged(&Sessions::default()));
    }

    #[test]
    fn a_file_that_is_no_key_is_refused() {
        let path = std::env::temp_dir().join(format!("ambit-session-key-{}", std::process::id()));
        for (length, is_key) in [(0, false), (31, false), (32, true), (4096, true), (4097, false)] {
            std::fs::write(&path, vec![b'k'; length]).unwrap();
            let read = Sessions::read(&path);
            assert_eq!(matches!(read, Ok(Some(_))), is_key, "{length} bytes");
            assert!(is_key || matches!(read, Err(KeyError::Length(_))), "{length} bytes");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Sessions::read(&path), Ok(None)), "who has none gets one by chance");
    }
}

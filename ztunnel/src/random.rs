//! Randomness for ids, draws, jitter, keys and nonces.

use ambit_hbone::ConnId;

/// What one connection needs, from one call of the generator.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// Its id.
    pub id: ConnId,
    /// Span id of the tunnel request.
    pub span: u64,
    /// Chooses the endpoint.
    pub endpoint: u64,
}

/// Draws for one connection.
pub fn draws() -> Draws {
    let mut bytes = [0; 32];
    fill(&mut bytes);
    let part = |at: usize| u64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
    let id = u128::from(part(0)) << 64 | u128::from(part(8));
    Draws { id: ConnId::from_random(id), span: part(16), endpoint: part(24) }
}

/// One random number, uniform over all of `u64`.
pub fn number() -> u64 {
    u64::from_ne_bytes(bytes())
}

/// Random bytes, fit for keys and nonces.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill(&mut bytes);
    bytes
}

fn fill(bytes: &mut [u8]) {
    // The generator fails only if the library's self-test failed, and then nothing may go on.
    aws_lc_rs::rand::fill(bytes).expect("the cryptographic generator works");
}

//! The form of a sealed file: a head in clear, then AES-256-GCM over the content with the head as associated data.
//!
//! Pure: key, nonce and bytes are arguments. Says nothing about what the content means or where files lie.
//!
//! | bytes | what |
//! | --- | --- |
//! | 8 | `ambseal\n` |
//! | 2 | format, big endian like every number here |
//! | 1 | kind |
//! | 8 | number of the file |
//! | 2, n | owner: length, text |
//! | 12 | nonce |
//! | rest | ciphertext and a tag of 16 bytes |

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use prost::Message;
use zeroize::{Zeroize as _, Zeroizing};

use super::refused::Refused;

#[cfg(test)]
mod tests;

/// Length of a key, in bytes.
pub const KEY_BYTES: usize = 32;
/// Length of a nonce, in bytes.
pub const NONCE_BYTES: usize = NONCE_LEN;
/// The format that this program writes and the only one it reads.
pub const VERSION: u16 = 1;
/// Longest owner, in bytes; names of nodes and clusters are shorter.
pub const OWNER_BYTES_MAX: usize = 1024;

const MAGIC: &[u8; 8] = b"ambseal\n";
const TAG_BYTES: usize = 16;
/// How much of somebody else's name an error shows, in characters.
const SHOWN_CHARS: usize = 80;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A node's state.
    State,
    /// The record of the newest number; no content.
    Mark,
}

impl Kind {
    fn byte(self) -> u8 {
        match self {
            Self::State => 1,
            Self::Mark => 2,
        }
    }
}

/// What is sealed beside the content, and has to be just so for a file to open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Label<'a> {
    /// What the file holds.
    pub kind: Kind,
    /// Whose it is: `CLUSTER/NODE`, at most [`OWNER_BYTES_MAX`] bytes.
    pub owner: &'a str,
    /// Its number; higher is newer.
    pub number: u64,
}

/// A key that seals and opens. Never shown.
#[derive(Debug)]
pub struct Key(LessSafeKey);

impl Key {
    /// Makes a key of its bytes, which the caller wipes.
    ///
    /// # Panics
    /// Never: the length is the algorithm's own.
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, bytes).expect("AES-256 takes 32 bytes");
        Self(LessSafeKey::new(key))
    }
}

/// Seals `content` under `label`; `nonce` must be fresh and random.
///
/// `None` if the owner or the content is longer than the format carries.
pub fn seal(
    key: &Key,
    nonce: [u8; NONCE_BYTES],
    label: &Label<'_>,
    content: &impl Message,
) -> Option<Vec<u8>> {
    let head = head(label)?;
    let start = head.len() + NONCE_BYTES;
    // Room for everything: growing would leave a copy of the content behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(start + content.encoded_len() + TAG_BYTES));
    bytes.extend_from_slice(&head);
    bytes.extend_from_slice(&nonce);
    content.encode(&mut *bytes).ok()?;
    let nonce = Nonce::assume_unique_for_key(nonce);
    let tag = key.0.seal_in_place_separate_tag(nonce, Aad::from(&head), &mut bytes[start..]).ok()?;
    bytes.extend_from_slice(tag.as_ref());
    Some(std::mem::take(&mut *bytes))
}

/// Opens what [`seal`] made under the same label; the content's bytes are wiped when dropped.
///
/// # Errors
/// [`Refused`] for anything else.
pub fn open(key: &Key, label: &Label<'_>, bytes: Vec<u8>) -> Result<Zeroizing<Vec<u8>>, Refused> {
    let mut bytes = Zeroizing::new(bytes);
    let (found, start) = read_head(&bytes, label.owner)?;
    if found.kind != label.kind.byte() {
        return Err(Refused::Kind);
    }
    if found.number != label.number {
        return Err(Refused::Renumbered { found: found.number });
    }
    let (head, rest) = bytes.split_at_mut(start);
    let (nonce, sealed) = rest.split_at_mut_checked(NONCE_BYTES).ok_or(Refused::Truncated)?;
    if sealed.len() < TAG_BYTES {
        return Err(Refused::Truncated);
    }
    let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| Refused::Truncated)?;
    let length = key.0.open_in_place(nonce, Aad::from(&*head), sealed).map_err(|_| Refused::Altered)?.len();
    let start = start + NONCE_BYTES;
    bytes.copy_within(start..start + length, 0);
    bytes[length..].zeroize();
    bytes.truncate(length);
    Ok(bytes)
}

/// The number in the head of a file of that kind and owner; nothing vouches for it until the file is opened.
///
/// # Errors
/// [`Refused`] for anything else.
pub fn claimed_number(kind: Kind, owner: &str, bytes: &[u8]) -> Result<u64, Refused> {
    let (found, _) = read_head(bytes, owner)?;
    if found.kind == kind.byte() { Ok(found.number) } else { Err(Refused::Kind) }
}

fn head(label: &Label<'_>) -> Option<Vec<u8>> {
    let owner = label.owner.as_bytes();
    let length = u16::try_from(owner.len()).ok().filter(|_| owner.len() <= OWNER_BYTES_MAX)?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&VERSION.to_be_bytes());
    head.push(label.kind.byte());
    head.extend_from_slice(&label.number.to_be_bytes());
    head.extend_from_slice(&length.to_be_bytes());
    head.extend_from_slice(owner);
    Some(head)
}

struct Head {
    kind: u8,
    number: u64,
}

/// Reads the head of a file of `owner`, and how long it is.
fn read_head(bytes: &[u8], owner: &str) -> Result<(Head, usize), Refused> {
    let mut rest = bytes;
    if take(&mut rest)? != *MAGIC {
        return Err(Refused::NotSealed);
    }
    let version = u16::from_be_bytes(take(&mut rest)?);
    if version != VERSION {
        return Err(Refused::Version { found: version, known: VERSION });
    }
    let [kind] = take(&mut rest)?;
    let number = u64::from_be_bytes(take(&mut rest)?);
    let length = usize::from(u16::from_be_bytes(take(&mut rest)?));
    let (found, rest) = rest.split_at_checked(length).ok_or(Refused::Truncated)?;
    if found != owner.as_bytes() {
        let found = String::from_utf8_lossy(found).chars().take(SHOWN_CHARS).collect();
        return Err(Refused::Foreign { found, own: owner.to_owned() });
    }
    Ok((Head { kind, number }, bytes.len() - rest.len()))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Refused> {
    let (taken, left) = rest.split_first_chunk().ok_or(Refused::Truncated)?;
    *rest = left;
    Ok(*taken)
}

//! Why a sealed file is not used. Names what was found; never shows what was in it.

use ambit_types::Reason;

/// Why a sealed file, or the whole directory, is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// It cannot be read.
    #[error("it cannot be read: {what}")]
    Unreadable {
        /// The system's answer.
        what: String,
    },
    /// Longer than anything this program writes.
    #[error("it has {bytes} bytes, at most {max} are read")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The bound.
        max: u64,
    },
    /// It ends before its parts do.
    #[error("it is cut short")]
    Truncated,
    /// Something else altogether.
    #[error("it is no sealed state")]
    NotSealed,
    /// Written by a program with another format.
    #[error("it has format {found}, this program knows {known}")]
    Version {
        /// Its format.
        found: u16,
        /// Ours.
        known: u16,
    },
    /// A sealed file, but of the other kind.
    #[error("it is not the kind of file its name says")]
    Kind,
    /// Of another node or cluster.
    #[error("it belongs to {found:?}, this node is {own:?}")]
    Foreign {
        /// Whose it is, shortened.
        found: String,
        /// Who we are.
        own: String,
    },
    /// Renamed: a file's number is part of what is sealed.
    #[error("it was written as number {found}; files must not be renamed")]
    Renumbered {
        /// Number inside.
        found: u64,
    },
    /// Another key, or changed bytes; the two cannot be told apart.
    #[error("it does not open: it was altered, or sealed with another key")]
    Altered,
    /// It opens and its content cannot be read, which only a defect explains.
    #[error("its content cannot be read: {what}")]
    Content {
        /// The decoder's answer.
        what: String,
    },
    /// The control plane was last heard too long ago.
    #[error("the control plane was last heard {age} s before now, at most {max} s are allowed")]
    TooOld {
        /// Seconds since.
        age: u64,
        /// The bound.
        max: u64,
    },
    /// A number that this node has not reached.
    #[error("its number is beyond {newest}, the newest that this node has written")]
    Beyond {
        /// The newest number on record.
        newest: u64,
    },
    /// Older than what this node keeps: somebody brought it back.
    #[error(
        "its number is below {oldest}, the oldest that this node keeps; it was brought back from the past"
    )]
    Rollback {
        /// The oldest number that is acceptable.
        oldest: u64,
    },
    /// The record of the newest number is gone or unusable, so nothing says which files are of today.
    #[error("the record of the newest number is missing, so it may be from the past")]
    Unmarked,
}

impl Refused {
    /// The code that stands for it.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Rollback { .. } | Self::Unmarked => Reason::ConfigRollbackRefused,
            Self::Unreadable { .. }
            | Self::TooLarge { .. }
            | Self::Truncated
            | Self::NotSealed
            | Self::Version { .. }
            | Self::Kind
            | Self::Foreign { .. }
            | Self::Renumbered { .. }
            | Self::Altered
            | Self::Content { .. }
            | Self::TooOld { .. }
            | Self::Beyond { .. } => Reason::SnapshotRejected,
        }
    }
}

//! What can go wrong with a folder, in words.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ambit_manifest::{ObjectKey, Problem};

/// Why a folder could not be read or an object not written.
///
/// Nothing was changed then, except that [`FolderError::Io`] may come after a part of several objects was written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FolderError {
    /// The operating system refused.
    #[error("cannot {doing} {}", path.display())]
    Io {
        /// What was being done, as in "cannot read FILE".
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Its reason.
        #[source]
        cause: io::Error,
    },
    /// Somebody else held the lock for too long.
    #[error("{} is locked by another process for more than {waited:?}; check for a stopped one", path.display())]
    Busy {
        /// The lock file.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// The object has problems and was not written.
    #[error("refused: {}", in_lines(problems))]
    Refused {
        /// All of them.
        problems: Vec<Problem>,
    },
    /// There is no such object.
    #[error("there is no {key}")]
    Absent {
        /// The object asked for.
        key: ObjectKey,
    },
    /// The object was deleted and made anew since the caller looked.
    #[error("{key} is not the object with uid {expected} any more, its uid is now {found:?}")]
    Replaced {
        /// The object.
        key: ObjectKey,
        /// The uid the caller knew.
        expected: String,
        /// The uid it has; empty if it has none.
        found: String,
    },
    /// The object stands in a file with others, which we do not rewrite.
    #[error("{key} stands in {} together with other objects; change it there or give it a file of its own", file.display())]
    SharedFile {
        /// The object.
        key: ObjectKey,
        /// The file.
        file: PathBuf,
    },
    /// A change would turn one object into another.
    #[error("a change of {key} made it {became}; kind, namespace and name must stay")]
    Renamed {
        /// The object.
        key: ObjectKey,
        /// What the change made of it.
        became: ObjectKey,
    },
    /// A name that cannot be a file's name.
    #[error("{name:?} cannot be a namespace or name of an object")]
    Name {
        /// The name.
        name: String,
    },
    /// The revision file was damaged.
    #[error("{} holds {text:?} and not a number; remove it to start again at 0", path.display())]
    Revision {
        /// The file.
        path: PathBuf,
        /// What it holds.
        text: String,
    },
}

impl FolderError {
    pub(crate) fn io(doing: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_owned();
        move |cause| Self::Io { doing, path, cause }
    }
}

fn in_lines(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

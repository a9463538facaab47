//! What can go wrong in a lab, told so that a person can act on it.

use std::io;
use std::path::PathBuf;

use ambit_net::linux::netns::NetNsError;

use crate::name::{LabName, NameError};

/// Why the lab could not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The name cannot be a lab's.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A lab of that name runs already.
    #[error("lab {0} is already up; use it, or remove it with: ambit lab down --name {0}")]
    AlreadyUp(LabName),
    /// No lab of that name.
    #[error("no lab named {0} is up; start one with: ambit lab up --name {0} -f FOLDER")]
    NotUp(LabName),
    /// There is a directory, but nobody answers.
    #[error(
        "the daemon of lab {name} does not answer ({why}); what it left is removed by: ambit lab down --name {name}"
    )]
    DaemonGone {
        /// The lab.
        name: LabName,
        /// What was seen.
        why: String,
    },
    /// A network namespace could not be made, opened or entered.
    #[error(transparent)]
    NetNs(#[from] NetNsError),
    /// The store of objects.
    #[error(transparent)]
    Store(#[from] ambit_folder::FolderError),
    /// Node tokens.
    #[error(transparent)]
    Token(#[from] crate::token::TokenError),
    /// The kernel refused a change of links, addresses or routes.
    #[error("{doing} in namespace {netns}")]
    Link {
        /// The change.
        doing: String,
        /// Where.
        netns: String,
        /// The kernel's answer.
        #[source]
        cause: Box<rtnetlink::Error>,
    },
    /// A file or directory.
    #[error("{doing} {path}")]
    File {
        /// What was being done to it.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// A program could not be started.
    #[error("starting {program}")]
    Start {
        /// Its path.
        program: String,
        /// The system's answer.
        #[source]
        cause: io::Error,
    },
    /// One of the mesh's programs is not where it should be.
    #[error(
        "program {program} is missing at {path}; build it with: cargo build (or start the lab without a mesh)"
    )]
    ProgramMissing {
        /// Its name.
        program: &'static str,
        /// Where it was looked for.
        path: PathBuf,
    },
    /// An outside tool said no.
    #[error("{tool} refused {doing}: {stderr}")]
    Tool {
        /// The tool.
        tool: &'static str,
        /// What it was asked.
        doing: String,
        /// What it said.
        stderr: String,
    },
    /// Something was asked that the lab cannot do as asked.
    #[error("{0}")]
    Usage(String),
    /// Something that was asked could not be done.
    #[error("{0}")]
    Failed(String),
    /// The daemon said no, in its own words.
    #[error("{message}")]
    Refused {
        /// The command's exit code.
        exit_code: i32,
        /// What it said.
        message: String,
    },
    /// The manifests are wrong; every problem on a line of its own.
    #[error("{}", .0.join("\n"))]
    Manifest(Vec<String>),
    /// The change was written but is not in force.
    #[error("written, but not in force after {waited_seconds} s; missing:\n{}", .missing.iter().map(|m| format!("  {m}")).collect::<Vec<_>>().join("\n"))]
    NotInForce {
        /// How long was waited.
        waited_seconds: u64,
        /// What is missing, a sentence each.
        missing: Vec<String>,
    },
}

impl LabError {
    /// Wraps a file error.
    pub fn file(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |cause| Self::File { doing, path, cause }
    }

    /// The command's exit code, by the list every Ambit command follows.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Usage(_) | Self::Name(_) => 64,
            Self::Manifest(_) | Self::Store(ambit_folder::FolderError::Refused { .. }) => 65,
            Self::NotUp(_) | Self::DaemonGone { .. } => 69,
            Self::Refused { exit_code, .. } => *exit_code,
            Self::AlreadyUp(_)
            | Self::NetNs(_)
            | Self::Link { .. }
            | Self::File { .. }
            | Self::Start { .. }
            | Self::ProgramMissing { .. }
            | Self::Tool { .. }
            | Self::Store(_)
            | Self::Token(_)
            | Self::Failed(_)
            | Self::NotInForce { .. } => 1,
        }
    }

    /// The message with everything that caused it, each cause after a colon.
    pub fn full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(inner) = cause {
            let inner_text = inner.to_string();
            if !text.ends_with(&inner_text) {
                text = format!("{text}: {inner_text}");
            }
            cause = inner.source();
        }
        text
    }
}

//! The programs a task calls and the folder it works in.
//!
//! Does not interpret what they print: that is the caller's.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use cargo_metadata::{Metadata, MetadataCommand};

/// Where the workspace is, which cargo to call, and what cargo knows of the workspace.
pub(crate) struct Tools {
    /// The folder of the virtual manifest.
    pub root: PathBuf,
    /// Members, dependencies and the resolved graph.
    pub metadata: Metadata,
    cargo: String,
}

impl Tools {
    /// Asks cargo for the workspace around the current folder.
    ///
    /// # Errors
    /// When cargo cannot be started or a manifest is broken; cargo's own words are part of the message.
    pub(crate) fn locate(cargo: &str) -> anyhow::Result<Self> {
        let metadata = MetadataCommand::new()
            .cargo_path(cargo)
            .other_options(vec!["--locked".to_owned()])
            .exec()
            .or_else(|_| MetadataCommand::new().cargo_path(cargo).exec())
            .context("asking cargo for the workspace's packages; run inside the repository, with manifests that parse")?;
        Ok(Self {
            root: metadata.workspace_root.clone().into_std_path_buf(),
            metadata,
            cargo: cargo.to_owned(),
        })
    }

    /// A cargo command in the workspace's root, not yet started.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.cargo);
        command.args(arguments).current_dir(&self.root);
        command
    }

    /// Whether a cargo component, such as `clippy`, answers.
    pub(crate) fn has_component(&self, name: &str) -> bool {
        self.cargo(&[name, "--version"]).output().is_ok_and(|out| out.status.success())
    }
}

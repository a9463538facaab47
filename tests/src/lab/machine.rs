//! What a lab could change on the machine outside of its own namespaces, as lines to be compared.
//!
//! Labs of other tests come and go meanwhile: only what cannot be theirs is looked at.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::{Background, Lab, PATIENCE};

/// What tells of the host's own network; `--stateless` leaves out counters, which move by themselves.
const COMMANDS: [&[&str]; 7] = [
    &["nft", "--stateless", "list", "ruleset"],
    &["ip", "-j", "link"],
    &["ip", "-j", "addr"],
    &["ip", "-j", "-4", "route", "show", "table", "all"],
    &["ip", "-j", "-6", "route", "show", "table", "all"],
    &["ip", "-j", "-4", "rule"],
    &["ip", "-j", "-6", "rule"],
];
/// Fields that count down on a machine that got its addresses for a time.
const COUNT_DOWN: [&str; 3] = ["valid_life_time", "preferred_life_time", "expires"];

impl Lab {
    /// The host's rules, links, addresses and routes, every mount of ours that is no other test's, and what in `/tmp`
    /// and `/run` bears this lab's name: a line each, the same before and after a lab.
    ///
    /// # Panics
    /// If one of the commands fails.
    #[track_caller]
    #[must_use]
    pub fn machine(&self) -> BTreeSet<String> {
        let network = COMMANDS.iter().map(|command| format!("{}: {}", command.join(" "), answer(command)));
        network.chain(self.mounts()).chain(self.files()).collect()
    }

    /// What [`Lab::machine`] tells now and did not before, or the other way round.
    ///
    /// # Panics
    /// As it does.
    #[track_caller]
    #[must_use]
    pub fn changed_since(&self, before: &BTreeSet<String>) -> Vec<String> {
        let now = self.machine();
        let gone = before.difference(&now).map(|line| format!("before: {line}"));
        gone.chain(now.difference(before).map(|line| format!("now: {line}"))).collect()
    }

    /// Every mount that names this lab, or us and no lab of a test.
    pub(super) fn mounts(&self) -> Vec<String> {
        let text = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let of_no_test = |line: &&str| line.contains("ambit") && !line.contains("/t-");
        let ours = text.lines().filter(|line| self.is_named_in(line) || of_no_test(line));
        ours.map(|line| format!("mount {line}")).collect()
    }

    fn files(&self) -> Vec<String> {
        let tops = ["/tmp", "/run"].into_iter().flat_map(|top| entries(Path::new(top)));
        let all = tops.flat_map(|path| {
            let below = if path.is_symlink() { Vec::new() } else { entries(&path) };
            std::iter::once(path).chain(below)
        });
        let named = all.map(|path| path.display().to_string()).filter(|path| self.is_named_in(path));
        named.map(|path| format!("file {path}")).collect()
    }

    /// Whether a text names this lab or one of its namespaces, and not only a lab whose name begins alike.
    pub(super) fn is_named_in(&self, text: &str) -> bool {
        text.match_indices(&self.name).any(|(at, name)| {
            let rest = &text[at + name.len()..];
            let goes_on = rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
            !goes_on || ["-fabric", "-node-", "-pod-"].iter().any(|kind| rest.starts_with(kind))
        })
    }
}

/// What lies directly in a folder; nothing if it is none.
fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[track_caller]
fn answer(command: &[&str]) -> String {
    let text = Background::start(Command::new(command[0]).args(&command[1..])).finish(PATIENCE).ok();
    match serde_json::from_str::<Value>(&text) {
        Ok(mut told) => {
            hold_still(&mut told);
            told.to_string()
        }
        Err(_) => text,
    }
}

fn hold_still(value: &mut Value) {
    match value {
        Value::Array(all) => all.iter_mut().for_each(hold_still),
        Value::Object(map) => {
            for key in COUNT_DOWN {
                let _ = map.remove(key);
            }
            map.values_mut().for_each(hold_still);
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

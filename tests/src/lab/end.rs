//! The end of a lab: taken down, and looked whether anything is left.

use std::fs;

use super::{Background, Lab, PATIENCE, binaries};

impl Lab {
    /// Lines of all programs' logs that contain `word`, with the file's name.
    #[must_use]
    pub fn log_lines(&self, word: &str) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(self.run_dir().join("logs")).into_iter().flatten().flatten() {
            let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap_or_default()).into_owned();
            let name = entry.file_name().to_string_lossy().into_owned();
            found.extend(text.lines().filter(|l| l.contains(word)).map(|l| format!("{name}: {l}")));
        }
        found
    }

    /// Keeps the logs of a failed test where a person finds them.
    fn keep_logs(&self) {
        let kept = binaries().join("netns-failures").join(&self.name);
        let _ = fs::remove_dir_all(&kept);
        let _ = fs::create_dir_all(&kept);
        // Those of the API server are in a folder of its own.
        let folders = ["logs", "kube/log"].map(|folder| fs::read_dir(self.run_dir().join(folder)));
        for entry in folders.into_iter().flatten().flatten().flatten() {
            let _ = fs::copy(entry.path(), kept.join(entry.file_name()));
        }
        eprintln!("logs of {} are kept in {}", self.name, kept.display());
    }

    /// What of this lab is still on the machine.
    #[must_use]
    pub fn left(&self) -> Vec<String> {
        let mut left = Vec::new();
        if self.run_dir().exists() {
            left.push(self.run_dir().display().to_string());
        }
        left.extend(self.mounts().into_iter().filter(|mount| self.is_named_in(mount)));
        for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let own =
                ["fabric", "node-", "pod-"].iter().any(|k| name.starts_with(&format!("{}-{k}", self.name)));
            left.extend(own.then(|| format!("namespace {name}")));
        }
        let marks = [format!("/run/ambit/{}/", self.name), format!("AMBIT_LAB={}\0", self.name)];
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let of = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let (line, environment) = (of("cmdline"), of("environ"));
            let text =
                format!("{}\0{}\0", String::from_utf8_lossy(&line), String::from_utf8_lossy(&environment));
            if marks.iter().any(|mark| text.contains(mark)) {
                left.push(format!("process {pid} {}", String::from_utf8_lossy(&line).replace('\0', " ")));
            }
        }
        left
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let panics = self.log_lines("panicked at");
        let failing = std::thread::panicking();
        if failing || !panics.is_empty() {
            self.keep_logs();
        }
        let down = Background::start(&mut self.command(&["lab", "down"])).finish(PATIENCE);
        let left = self.left();
        if failing {
            eprintln!("{}: down exit {:?}, panics {panics:?}, left {left:?}", self.name, down.code);
            return;
        }
        assert_eq!(down.code, Some(0), "lab down: {}", down.stderr);
        assert!(left.is_empty(), "the lab left behind: {left:#?}");
        assert!(panics.is_empty(), "programs panicked: {panics:#?}");
    }
}

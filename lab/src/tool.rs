//! Running an outside tool (nft, tc) inside a namespace and taking its answer.

use std::io::Write as _;
use std::process::{Command, Stdio};

use crate::error::LabError;
use crate::link::Place;

/// Runs a tool to its end inside a namespace and returns what it printed.
///
/// # Errors
/// [`LabError::Tool`] with what it said, if it is missing or refuses.
pub fn run(place: &Place, tool: &'static str, args: &[&str], input: &str) -> Result<String, LabError> {
    let refused = |stderr: String| LabError::Tool {
        tool,
        doing: format!("`{tool} {}` in {}", args.join(" "), place.name),
        stderr,
    };
    let answer = place.netns.run_on_thread(|| {
        let mut child = Command::new(tool)
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    })?;
    let output = answer.map_err(|e| refused(format!("{e}; is {tool} installed?")))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

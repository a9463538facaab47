//! Which pod a process belongs to, from the names of its control groups.
//!
//! Pure. The kubelet names a pod's group by its uid, below `kubepods` in one of two styles, and container runtimes add
//! their own below that. In a namespace of control groups the beginning of the path is missing, so only the pod's own
//! component is looked for.

#[cfg(test)]
mod tests;

/// Longest uid that is taken for one; a UUID has 36 characters, a static pod's hash 32.
const UID_MAX: usize = 36;

/// The uid of the pod that a process belongs to, from the text of its `/proc/PID/cgroup`; `None` if it belongs to none,
/// or if its groups (version 1 has several) do not agree.
pub fn pod_uid(text: &str) -> Option<String> {
    let mut found: Option<String> = None;
    for line in text.lines() {
        let Some(path) = line.splitn(3, ':').nth(2) else { continue };
        let Some(uid) = uid_of_path(path) else { continue };
        if found.as_ref().is_some_and(|known| *known != uid) {
            return None;
        }
        found = Some(uid);
    }
    found
}

/// The first component that names a pod counts: what runs inside a pod may make groups of any name below its own.
fn uid_of_path(path: &str) -> Option<String> {
    path.split('/').find_map(uid_of_component)
}

fn uid_of_component(component: &str) -> Option<String> {
    // Unparsed systemd names come as SLICE:PREFIX:CONTAINER.
    let name = component.split(':').next().unwrap_or_default();
    let (uid, by_systemd) = match name.strip_suffix(".slice") {
        Some(slice) => (slice.rsplit_once("-pod")?.1, true),
        None => (name.strip_prefix("pod")?, false),
    };
    // systemd takes a hyphen for a level of its own, so the kubelet writes underscores.
    let uid = if by_systemd { uid.replace('_', "-") } else { uid.to_owned() };
    is_uid(&uid).then_some(uid)
}

fn is_uid(text: &str) -> bool {
    let hex = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
    if text.len() > UID_MAX {
        return false;
    }
    let parts: Vec<&str> = text.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    matches!(lengths.as_slice(), [32] | [8, 4, 4, 4, 12]) && parts.iter().all(|part| hex(part))
}

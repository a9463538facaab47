//! `$(NAME)` in a container's command, arguments and environment, expanded as the kubelet does it.
//!
//! Pure. `$$(NAME)` stays as `$(NAME)`; a name that is not known stays as it was written.

/// Expands `$(NAME)` from `env`; of several entries with one name the last counts.
pub fn expand(text: &str, env: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest.strip_prefix('(').and_then(|r| r.split_once(')')) {
            match env.iter().rev().find(|(key, _)| key == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    out
}

/// Expands a list of variables in order: each may use those before it.
pub fn expand_env(declared: &[(String, String)], base: &[(String, String)]) -> Vec<(String, String)> {
    let mut env = base.to_vec();
    for (name, value) in declared {
        let value = expand(value, &env);
        env.retain(|(known, _)| known != name);
        env.push((name.clone(), value));
    }
    env
}

#[cfg(test)]
mod tests;

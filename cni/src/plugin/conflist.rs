//! Our place in a node's list of network plugins: the texts of the configuration directory in, the changes out.
//!
//! Pure. A file is changed by cutting and inserting text, so that everything another program wrote in it stays byte for
//! byte and taking our entry out again restores what was there. A file that cannot be read is never touched.

use std::ops::Range;

use serde::Serialize;
use serde_json::Value;

use scan::Array;

mod scan;

#[cfg(test)]
mod tests;

/// The plugin's `type`, which is the name of its binary.
pub const PLUGIN_TYPE: &str = "ambit-cni";
/// What a converted single configuration is called meanwhile; no container runtime reads that.
pub const SAVED: &str = ".ambit-saved";
/// What Cilium appends to the names of configurations that it puts aside in exclusive mode.
const CILIUM_BACKUP: &str = ".cilium_bak";
/// Version of a list that is made from a configuration without one, or with one that knows no chains.
const LIST_VERSION: &str = "0.3.1";

/// Our entry in a list of plugins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// [`PLUGIN_TYPE`].
    #[serde(rename = "type")]
    pub kind: String,
    /// The node agent's socket, as the node sees it.
    pub socket: String,
    /// Namespaces whose pods start without asking the agent.
    pub exclude_namespaces: Vec<String>,
    /// Namespace of the agent itself: its pods start while the agent is away.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_namespace: Option<String>,
}

/// One file of the directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfFile {
    /// Its name, without the directory.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Why a file is left alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {what}; it is not touched, and a container runtime does not use it either")]
pub struct ConfProblem {
    /// The file's name.
    pub file: String,
    /// What is wrong, in words.
    pub what: String,
}

/// Something about the directory that a person should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Cilium puts away the configurations of others, so it may put its own back without our entry.
    CiliumExclusive {
        /// Files that it has put aside.
        backups: Vec<String>,
    },
    /// Istio's own plugin is in the list: two node agents would capture the same pods.
    IstioPlugin {
        /// The list.
        file: String,
    },
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::CiliumExclusive { backups } => write!(
                f,
                "Cilium owns the directory of network configurations (it put aside {}); set its value cni.exclusive=false, \
                 or it removes our plugin again",
                backups.join(", ")
            ),
            Self::IstioPlugin { file } => {
                write!(f, "{file} also lists istio-cni; remove one of the two node agents")
            }
        }
    }
}

/// One change of the directory; changes are made in order, each one atomically.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A file gets this text.
    Write {
        /// Its name.
        name: String,
        /// All of its text.
        text: String,
        /// The file whose permissions it gets.
        like: String,
    },
    /// A file gets another name; a file of that name is replaced.
    Rename {
        /// Its name.
        from: String,
        /// The new one.
        to: String,
    },
    /// A file goes.
    Remove {
        /// Its name.
        name: String,
    },
}

/// What is to be done with a directory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// The configuration that a container runtime uses once the changes are made; `None` if there is none.
    pub primary: Option<String>,
    /// The changes, in order.
    pub changes: Vec<Change>,
    /// Files that are left alone.
    pub problems: Vec<ConfProblem>,
    /// What a person should know.
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    List,
    Single,
}

/// Whether a container runtime, or we, would look into a file of that name.
pub fn is_configuration(name: &str) -> bool {
    let name = name.strip_suffix(SAVED).or_else(|| name.strip_suffix(CILIUM_BACKUP)).unwrap_or(name);
    form(name).is_some()
}

/// What a container runtime makes of a file's name.
fn form(name: &str) -> Option<Form> {
    if name.starts_with('.') {
        return None;
    }
    if name.ends_with(".conflist") {
        return Some(Form::List);
    }
    (name.ends_with(".conf") || name.ends_with(".json")).then_some(Form::Single)
}

/// How our entry gets into the configuration that a container runtime uses: the first by name that can be read, or the
/// one called `only`.
pub fn install(files: &[ConfFile], entry: &Entry, only: Option<&str>) -> Plan {
    let mut plan = Plan { findings: findings(files), ..Plan::default() };
    let mut named: Vec<(&ConfFile, Form)> =
        files.iter().filter_map(|file| Some((file, form(&file.name)?))).collect();
    named.sort_by(|a, b| a.0.name.cmp(&b.0.name));
    let converted = only.map(list_name);
    named.retain(|(file, _)| {
        only.is_none_or(|only| file.name == only || converted.as_deref() == Some(file.name.as_str()))
    });
    for (file, form) in named {
        let problem = |what: String| ConfProblem { file: file.name.clone(), what };
        match edit(file, form, entry) {
            Ok((primary, changes)) => {
                plan.primary = Some(primary);
                plan.changes = changes;
                return plan;
            }
            Err(what) => plan.problems.push(problem(what)),
        }
    }
    plan
}

fn edit(file: &ConfFile, form: Form, entry: &Entry) -> Result<(String, Vec<Change>), String> {
    let like = file.name.clone();
    match form {
        Form::List => {
            let text = with_entry(&file.text, entry)?;
            let write = text.map(|text| Change::Write { name: file.name.clone(), text, like });
            Ok((file.name.clone(), write.into_iter().collect()))
        }
        Form::Single => {
            let name = list_name(&file.name);
            let text = as_list(file, entry)?;
            // The list first: there is no moment without a configuration.
            let changes = vec![
                Change::Write { name: name.clone(), text, like },
                Change::Rename { from: file.name.clone(), to: format!("{}{SAVED}", file.name) },
            ];
            Ok((name, changes))
        }
    }
}

/// How every trace of ours leaves the directory.
pub fn uninstall(files: &[ConfFile]) -> Plan {
    let mut plan = Plan::default();
    let has = |name: &str| files.iter().any(|file| file.name == name);
    let saved: Vec<&str> = files.iter().filter_map(|file| file.name.strip_suffix(SAVED)).collect();
    for original in &saved {
        let (from, list) = (format!("{original}{SAVED}"), list_name(original));
        plan.changes.push(match has(original) {
            // Its owner has written it again meanwhile.
            true => Change::Remove { name: from },
            false => Change::Rename { from, to: (*original).to_owned() },
        });
        if files.iter().any(|file| file.name == list && holds_ours(&file.text)) {
            plan.changes.push(Change::Remove { name: list });
        }
    }
    let made: Vec<String> = saved.iter().map(|original| list_name(original)).collect();
    for file in files.iter().filter(|file| !file.name.ends_with(SAVED) && !made.contains(&file.name)) {
        let listed = file.name.strip_suffix(CILIUM_BACKUP).unwrap_or(&file.name);
        if form(listed) != Some(Form::List) || !file.text.contains(PLUGIN_TYPE) {
            continue;
        }
        match without_entry(&file.text) {
            Ok(Some(text)) => {
                let (name, like) = (file.name.clone(), file.name.clone());
                plan.changes.push(Change::Write { name, text, like });
            }
            Ok(None) => {}
            Err(what) => plan.problems.push(ConfProblem { file: file.name.clone(), what }),
        }
    }
    plan
}

fn holds_ours(text: &str) -> bool {
    read_list(text).is_ok_and(|(_, array, values)| !ours(&array, &values).is_empty())
}

fn findings(files: &[ConfFile]) -> Vec<Finding> {
    let backups: Vec<String> = files
        .iter()
        .filter(|file| file.name.ends_with(CILIUM_BACKUP))
        .map(|file| file.name.clone())
        .collect();
    let mut found = Vec::new();
    if !backups.is_empty() {
        found.push(Finding::CiliumExclusive { backups });
    }
    for file in files.iter().filter(|file| form(&file.name) == Some(Form::List)) {
        if read_list(&file.text).is_ok_and(|(_, _, plugins)| plugins.iter().any(|p| p["type"] == "istio-cni"))
        {
            found.push(Finding::IstioPlugin { file: file.name.clone() });
        }
    }
    found
}

fn list_name(name: &str) -> String {
    let stem = name.strip_suffix(".conf").or_else(|| name.strip_suffix(".json"));
    stem.map_or_else(|| name.to_owned(), |stem| format!("{stem}.conflist"))
}

/// The text of a list with our entry in it; `None` if it is there already.
fn with_entry(text: &str, entry: &Entry) -> Result<Option<String>, String> {
    let (_, array, values) = read_list(text)?;
    let mine = ours(&array, &values);
    let wanted = serde_json::to_value(entry).map_err(|e| e.to_string())?;
    if let [(index, range)] = mine.as_slice() {
        if values.get(*index) == Some(&wanted) {
            return Ok(None);
        }
        return Ok(Some(replace(text, range.clone(), &written(text, &array, entry)?)));
    }
    let bare = if mine.is_empty() { text.to_owned() } else { strip(text)? };
    let (_, array, _) = read_list(&bare)?;
    let Some(last) = array.items.last() else { return Err("its list of plugins is empty".to_owned()) };
    let gap = gap(&bare, &array).to_owned();
    let addition = format!(",{gap}{}", written(&bare, &array, entry)?);
    Ok(Some(replace(&bare, last.end..last.end, &addition)))
}

/// The text of a list without our entry; `None` if it is not there.
fn without_entry(text: &str) -> Result<Option<String>, String> {
    let (_, array, values) = read_list(text)?;
    if ours(&array, &values).is_empty() { Ok(None) } else { strip(text).map(Some) }
}

fn strip(text: &str) -> Result<String, String> {
    let mut text = text.to_owned();
    loop {
        let (_, array, values) = read_list(&text)?;
        let Some((index, range)) = ours(&array, &values).into_iter().next_back() else { return Ok(text) };
        let before = index.checked_sub(1).and_then(|before| array.items.get(before));
        let cut = match (before, array.items.get(index + 1)) {
            (Some(before), _) => before.end..range.end,
            (None, Some(after)) => range.start..after.start,
            (None, None) => return Err("it lists no plugin but ours; remove the file by hand".to_owned()),
        };
        text = replace(&text, cut, "");
    }
}

/// A list made from a single configuration, with our entry after it.
fn as_list(file: &ConfFile, entry: &Entry) -> Result<String, String> {
    let value: Value = serde_json::from_str(&file.text).map_err(|e| format!("it is not JSON ({e})"))?;
    if value["type"].as_str().is_none_or(str::is_empty) {
        return Err("it names no plugin \"type\"".to_owned());
    }
    let stem = file.name.rsplit_once('.').map_or(file.name.as_str(), |(stem, _)| stem);
    let name = value["name"].as_str().filter(|name| !name.is_empty()).unwrap_or(stem);
    let version = value["cniVersion"].as_str().filter(|v| !matches!(*v, "" | "0.1.0" | "0.2.0"));
    let quoted = |text: &str| serde_json::to_string(text).map_err(|e| e.to_string());
    let ours = serde_json::to_string_pretty(entry).map_err(|e| e.to_string())?;
    Ok(format!(
        "{{\n  \"cniVersion\": {},\n  \"name\": {},\n  \"plugins\": [\n    {},\n    {}\n  ]\n}}\n",
        quoted(version.unwrap_or(LIST_VERSION))?,
        quoted(name)?,
        indented(file.text.trim(), "    "),
        indented(&ours, "    "),
    ))
}

/// A list that a container runtime would take, where its plugins stand in the text, and what they are.
fn read_list(text: &str) -> Result<(Value, Array, Vec<Value>), String> {
    let value: Value = serde_json::from_str(text).map_err(|e| format!("it is not JSON ({e})"))?;
    if value["name"].as_str().is_none_or(str::is_empty) {
        return Err("it has no \"name\"".to_owned());
    }
    let Some(plugins) = value["plugins"].as_array().filter(|list| !list.is_empty()) else {
        return Err("it has no list of \"plugins\"".to_owned());
    };
    if let Some(at) = plugins.iter().position(|p| p["type"].as_str().is_none_or(str::is_empty)) {
        return Err(format!("plugin {at} has no \"type\""));
    }
    let plugins = plugins.clone();
    let array = scan::array(text, "plugins").filter(|array| array.items.len() == plugins.len());
    let array = array.ok_or_else(|| "its list of \"plugins\" cannot be found in the text".to_owned())?;
    Ok((value, array, plugins))
}

fn ours(array: &Array, values: &[Value]) -> Vec<(usize, Range<usize>)> {
    let items = values.iter().zip(&array.items).enumerate();
    items
        .filter(|(_, (value, _))| value["type"] == PLUGIN_TYPE)
        .map(|(i, (_, range))| (i, range.clone()))
        .collect()
}

/// What stands between the opening bracket and the first plugin: how this file separates its plugins.
fn gap<'t>(text: &'t str, array: &Array) -> &'t str {
    let first = array.items.first().map_or(array.open + 1, |first| first.start);
    text.get(array.open + 1..first).unwrap_or_default()
}

/// Our entry in the style of the file: on one line, or indented like the first plugin.
fn written(text: &str, array: &Array, entry: &Entry) -> Result<String, String> {
    match gap(text, array).rsplit_once('\n') {
        None => serde_json::to_string(entry),
        Some((_, indent)) => serde_json::to_string_pretty(entry).map(|text| indented(&text, indent)),
    }
    .map_err(|e| e.to_string())
}

/// Every line but the first moved to the right; strings in JSON hold no line ends.
fn indented(text: &str, by: &str) -> String {
    text.replace('\n', &format!("\n{by}"))
}

fn replace(text: &str, range: Range<usize>, with: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(range, with);
    text
}

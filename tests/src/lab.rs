//! A lab for a test: up, exercised through its command line, taken down, and checked to have left nothing.
//!
//! Everything goes through the contract that people use too: `ambit lab …`, `ambit flows`, `ambit get`. What a test
//! claims stands in the test; this file only acts, waits for conditions and reads.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test tells its runner what it could not do"
)]

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ambit_net::linux::netns::{NETNS_DIR, NetNs};
use ambit_runtime::clock;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

mod machine;

/// Pause between two looks at a condition.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long any single command may take, unless a test says otherwise.
const PATIENCE: Duration = Duration::from_secs(90);
/// Tools that the tests use beside the project's own programs.
const TOOLS: [&str; 9] =
    ["nft", "ip", "tcpdump", "curl", "nginx", "redis-server", "mariadbd", "iperf3", "nc"];

/// Whether the rows run in full length: `AMBIT_SOAK=1`.
#[must_use]
pub fn soak() -> bool {
    flag("AMBIT_SOAK")
}

pub(crate) fn flag(name: &str) -> bool {
    std::env::var_os(name).is_some_and(|v| !["", "0", "false"].iter().any(|off| v == OsStr::new(off)))
}

/// What this machine lacks to run the namespace tests; none if it can.
fn lacking() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root is needed".to_owned());
    }
    for program in ["ambit", "ztunnel", "istiod-lite", "ambit-cni", "http-peer"] {
        let path = binaries().join(program);
        if !path.is_file() {
            return Some(format!(
                "{} is missing; build it with: cargo build --workspace --bins",
                path.display()
            ));
        }
    }
    let there = |tool: &str| {
        let folders = ["/usr/sbin", "/usr/bin", "/sbin", "/bin", "/usr/local/bin"];
        folders.iter().any(|folder| Path::new(folder).join(tool).exists())
    };
    TOOLS
        .into_iter()
        .find(|t| !there(t))
        .map(|t| format!("{t} is not installed; install it with: xtask/need.sh test"))
}

/// What this machine lacks for a lab over a real API server; none if it can.
fn lacking_kube() -> Option<String> {
    let folder = binaries();
    let named = std::env::var_os("AMBIT_KUBE_BIN").map(PathBuf::from);
    let beside = [Some(folder.join("ambit-kube")), folder.parent().map(|up| up.join("kube/ambit-kube"))];
    let mut places = named.into_iter().chain(beside.into_iter().flatten());
    let found = places.any(|place| place.is_file());
    (!found).then(|| "the program ambit-kube was not built; build it with: make kube".to_owned())
}

/// Says that a test cannot run here, and why.
///
/// # Panics
/// If `AMBIT_REQUIRE_NETNS=1` demands that it runs.
#[track_caller]
pub fn not_run(lacking: &str) {
    assert!(!flag("AMBIT_REQUIRE_NETNS"), "AMBIT_REQUIRE_NETNS is set, but {lacking}");
    println!("NOT RUN: {lacking}");
}

/// The folder of the programs under test: that of the test's own executable, one up from `deps`.
pub(crate) fn binaries() -> PathBuf {
    let own = std::env::current_exe().expect("a running test has a file");
    let folder = own.parent().expect("a file is in a folder");
    if folder.ends_with("deps") {
        folder.parent().expect("deps is in a folder").into()
    } else {
        folder.into()
    }
}

/// The program under test that stands beside the others.
#[must_use]
pub fn ambit() -> String {
    binaries().join("ambit").display().to_string()
}

/// The tests' own HTTP and gRPC peer.
#[must_use]
pub fn http_peer() -> String {
    binaries().join("http-peer").display().to_string()
}

/// A file of `tests/peers`.
#[must_use]
pub fn peer(name: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(name).display().to_string()
}

/// What a command came to.
#[derive(Debug, Clone)]
pub struct Output {
    /// Exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Output {
    /// Its standard output.
    ///
    /// # Panics
    /// If it did not exit with 0.
    #[track_caller]
    #[must_use]
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "exit code; stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout
    }
}

/// A process that runs beside the test, in a pod or not; ended when dropped.
#[derive(Debug)]
pub struct Background {
    what: String,
    child: Child,
    files: TempDir,
    since: std::time::Instant,
}

impl Background {
    /// Starts a command beside the test.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        let files = TempDir::new().expect("a temporary folder");
        let file = |name: &str| File::create(files.path().join(name)).expect("a temporary file");
        command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
        let since = clock::monotonic();
        let child = command.spawn().unwrap_or_else(|e| panic!("starting {what}: {e}"));
        Self { what, child, files, since }
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.read("out")
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.read("err")
    }

    fn read(&self, name: &str) -> String {
        let bytes = fs::read(self.files.path().join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Whether it still runs.
    ///
    /// # Panics
    /// If its state cannot be read.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child's state").is_none()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// If it does not end in time.
    #[track_caller]
    #[must_use]
    pub fn finish(mut self, deadline: Duration) -> Output {
        let end = self.since + deadline;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child's state") {
                let took = clock::monotonic() - self.since;
                return Output { code: status.code(), stdout: self.stdout(), stderr: self.stderr(), took };
            }
            if clock::monotonic() > end {
                let (what, out, err) = (self.what.clone(), self.stdout(), self.stderr());
                panic!("{what} still runs after {deadline:?}; stdout: {out}\nstderr: {err}");
            }
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    /// Ends it with SIGTERM and waits.
    ///
    /// # Panics
    /// If it does not end within ten seconds.
    #[track_caller]
    #[must_use]
    pub fn stop(self) -> Output {
        self.signal(Signal::SIGTERM);
        let so_far = clock::monotonic() - self.since;
        self.finish(so_far + Duration::from_secs(10))
    }

    /// Sends it a signal; one that has ended is no error.
    ///
    /// # Panics
    /// If its pid is none.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("the kernel's pids fit");
        // It may have ended just now; then there is nobody to tell.
        let _ = kill(Pid::from_raw(pid), signal);
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{} said: {}{}", self.what, self.stdout(), self.stderr());
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            // `lab exec` passes SIGTERM on to the command in the pod, which SIGKILL would leave behind.
            self.signal(Signal::SIGTERM);
            let end = clock::monotonic() + Duration::from_secs(2);
            while matches!(self.child.try_wait(), Ok(None)) && clock::monotonic() < end {
                std::thread::sleep(LOOK_AGAIN);
            }
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Packets on the fabric's bridge, from when it was made until it is dropped.
#[derive(Debug)]
pub struct Capture {
    process: Background,
    file: PathBuf,
}

impl Capture {
    /// Whether `marker` crossed the fabric in clear so far.
    #[must_use]
    pub fn saw(&self, marker: &str) -> bool {
        let bytes = fs::read(&self.file).unwrap_or_default();
        bytes.windows(marker.len()).any(|w| w == marker.as_bytes())
    }

    /// How much was captured, in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        fs::metadata(&self.file).map_or(0, |m| m.len())
    }

    /// Whether nothing was captured: the file's head is 24 bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() <= 24
    }

    /// Ends the capture after what is on its way has been written; how many packets match a tcpdump filter.
    ///
    /// # Panics
    /// If tcpdump cannot read what it wrote.
    #[must_use]
    pub fn count(&self, filter: &str) -> usize {
        let mut command = Command::new("tcpdump");
        command.args(["-nn", "-r"]).arg(&self.file).arg(filter);
        Background::start(&mut command).finish(PATIENCE).ok().lines().count()
    }

    /// Ends the capture.
    pub fn stop(self) {
        drop(self.process.stop());
    }
}

/// Takes a lab's name for the whole process: tests run side by side, and a second lab of that name would begin by
/// taking the first one down.
#[track_caller]
fn claim(name: &str) {
    static TAKEN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let fresh = TAKEN.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    assert!(fresh, "the lab name {name:?} is used twice in one test program");
}

/// A lab that this test brought up.
#[derive(Debug)]
pub struct Lab {
    name: String,
    files: TempDir,
}

impl Lab {
    /// Brings a lab up; none if this machine cannot, which is said.
    ///
    /// # Panics
    /// If it does not come up, if its name was used before, or if this machine cannot and `AMBIT_REQUIRE_NETNS=1`
    /// demands it.
    #[track_caller]
    #[must_use]
    pub fn up(name: &str, manifests: &[Value], settings: &[&str]) -> Option<Self> {
        let lab = Self::adopt(name)?;
        let file = lab.write(manifests);
        let mut args = vec!["lab", "up", "-f", &file];
        for setting in settings {
            args.extend(["--set", setting]);
        }
        drop(lab.ambit(&args).ok());
        Some(lab)
    }

    /// As [`Self::up`], over a real API server; none also where its program was not built.
    ///
    /// # Panics
    /// As [`Self::up`].
    #[track_caller]
    #[must_use]
    pub fn up_kube(name: &str, manifests: &[Value], settings: &[&str]) -> Option<Self> {
        if let Some(lacking) = lacking_kube() {
            not_run(&lacking);
            return None;
        }
        let lab = Self::adopt(name)?;
        let file = lab.write(manifests);
        let mut args = vec!["lab", "up", "--source", "kube"];
        if !manifests.is_empty() {
            args.extend(["-f", &file]);
        }
        for setting in settings {
            args.extend(["--set", setting]);
        }
        drop(lab.ambit(&args).ok());
        Some(lab)
    }

    /// Takes charge of a lab that a command of the test brings up: what a killed run left goes first, and at the end
    /// it is taken down and checked like any other. None if this machine cannot, which is said.
    ///
    /// # Panics
    /// If its name was used before, or if this machine cannot and `AMBIT_REQUIRE_NETNS=1` demands it.
    #[track_caller]
    #[must_use]
    pub fn adopt(name: &str) -> Option<Self> {
        claim(name);
        if let Some(lacking) = lacking() {
            not_run(&lacking);
            return None;
        }
        let lab = Self { name: format!("t-{name}"), files: TempDir::new().expect("a temporary folder") };
        // What a killed run of this test left is in the way.
        drop(lab.ambit(&["lab", "down"]));
        Some(lab)
    }

    /// The lab's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn write(&self, objects: &[Value]) -> String {
        let texts: Vec<String> = objects.iter().map(|o| format!("{o:#}")).collect();
        self.file("manifests.yaml", &texts.join("\n---\n"))
    }

    /// Writes a file in the test's own folder; its path.
    ///
    /// # Panics
    /// If it cannot be written.
    #[must_use]
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.files.path().join(name);
        fs::write(&path, text).expect("writing a temporary file");
        path.display().to_string()
    }

    /// A folder of the test's own, for a program in a pod.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn folder(&self, name: &str) -> String {
        let path = self.files.path().join(name);
        fs::create_dir_all(&path).expect("making a temporary folder");
        path.display().to_string()
    }

    /// The lab's own directory.
    #[must_use]
    pub fn run_dir(&self) -> PathBuf {
        Path::new("/run/ambit").join(&self.name)
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(ambit());
        command.env("AMBIT_LAB", &self.name).args(args);
        command
    }

    /// Runs `ambit ARGS…` for this lab.
    #[track_caller]
    #[must_use]
    pub fn ambit(&self, args: &[&str]) -> Output {
        self.start(args).finish(PATIENCE)
    }

    /// Starts `ambit ARGS…` for this lab.
    #[track_caller]
    #[must_use]
    pub fn start(&self, args: &[&str]) -> Background {
        Background::start(&mut self.command(args))
    }

    /// Runs `ambit lab ARGS…`; its standard output.
    #[track_caller]
    pub fn lab(&self, args: &[&str]) -> String {
        self.ambit(&[&["lab"], args].concat()).ok()
    }

    /// Applies objects and waits until they are in force.
    #[track_caller]
    pub fn apply(&self, objects: &[Value]) {
        let file = self.write(objects);
        drop(self.lab(&["apply", "-f", &file]));
    }

    /// Runs a command in a pod (`NAMESPACE/NAME`), whatever its exit code.
    #[track_caller]
    #[must_use]
    pub fn exec(&self, pod: &str, command: &[&str]) -> Output {
        self.spawn(pod, command).finish(PATIENCE)
    }

    /// Starts a command in a pod (`NAMESPACE/NAME`).
    #[track_caller]
    #[must_use]
    pub fn spawn(&self, pod: &str, command: &[&str]) -> Background {
        let (namespace, name) = split(pod);
        let args = [&["lab", "exec", "-n", namespace, name, "--"], command].concat();
        Background::start(&mut self.command(&args))
    }

    /// Opens a TCP connection from within a pod's namespace (`NAMESPACE/NAME`); it does not block.
    ///
    /// # Panics
    /// If it cannot be opened.
    #[track_caller]
    #[must_use]
    pub fn connect_from(&self, pod: &str, to: SocketAddr) -> TcpStream {
        let (namespace, name) = split(pod);
        let path = Path::new(NETNS_DIR).join(format!("{}-pod-{namespace}-{name}", self.name));
        let netns = NetNs::open(&path).expect("the pod's namespace");
        let tcp = netns.run(|| TcpStream::connect_timeout(&to, Duration::from_secs(2))).expect("entering it");
        let tcp = tcp.unwrap_or_else(|e| panic!("connecting from {pod} to {to}: {e}"));
        tcp.set_nonblocking(true).expect("a socket");
        tcp
    }

    /// Runs a command in a node's namespace.
    #[track_caller]
    #[must_use]
    pub fn on_node(&self, node: &str, command: &[&str]) -> Output {
        let mut outer = Command::new("ip");
        outer.args(["netns", "exec", &format!("{}-node-{node}", self.name)]).args(command);
        Background::start(&mut outer).finish(PATIENCE)
    }

    /// Starts the traffic oracle's client in a pod; [`summary`] reads what it came to.
    #[track_caller]
    #[must_use]
    pub fn client(&self, pod: &str, target: &str, args: &[&str]) -> Background {
        let ambit = ambit();
        self.spawn(pod, &[&[&*ambit, "echoer", "client", target, "--events"], args].concat())
    }

    /// Runs the traffic oracle's client in a pod to its end; its summary.
    #[track_caller]
    #[must_use]
    pub fn call(&self, pod: &str, target: &str, args: &[&str]) -> Value {
        summary(&self.client(pod, target, args).finish(PATIENCE))
    }

    /// An object of the lab.
    ///
    /// # Panics
    /// If there is no such object.
    #[track_caller]
    #[must_use]
    pub fn get(&self, kind: &str, object: &str) -> Value {
        let (namespace, name) = split(object);
        let text = self.lab(&["get", kind, name, "-n", namespace, "-o", "json"]);
        serde_json::from_str(&text).expect("JSON from lab get")
    }

    /// A pod's first address of a family (4 or 6).
    ///
    /// # Panics
    /// If it has none.
    #[track_caller]
    #[must_use]
    pub fn address(&self, pod: &str, family: u8) -> IpAddr {
        let object = self.get("pod", pod);
        let all = object["status"]["podIPs"].as_array().expect("status.podIPs");
        let mut addresses = all.iter().filter_map(|a| a["ip"].as_str()?.parse::<IpAddr>().ok());
        addresses.find(|a| a.is_ipv4() == (family == 4)).expect("an address of that family")
    }

    /// A pod's address of a family with a port, as a client writes it.
    #[track_caller]
    #[must_use]
    pub fn target(&self, pod: &str, family: u8, port: u16) -> String {
        SocketAddr::new(self.address(pod, family), port).to_string()
    }

    /// The process of a part (`istiod`, `ztunnel/NODE`, `cni/NODE`); 0 while it does not run.
    ///
    /// # Panics
    /// If the lab knows no such part.
    #[track_caller]
    #[must_use]
    pub fn pid(&self, part: &str) -> u64 {
        let status: Value =
            serde_json::from_str(&self.lab(&["status", "-o", "json"])).expect("JSON from lab status");
        let programs = status["programs"].as_array().expect("programs");
        let found = programs.iter().find(|p| p["target"] == part).expect("the part is known");
        found["pid"].as_u64().unwrap_or(0)
    }

    /// The first process of a pod that runs.
    ///
    /// # Panics
    /// If there is no such pod, or none of its processes runs.
    #[track_caller]
    #[must_use]
    pub fn pod_pid(&self, pod: &str) -> u64 {
        let (namespace, name) = split(pod);
        let status: Value =
            serde_json::from_str(&self.lab(&["status", "-o", "json"])).expect("JSON from lab status");
        let mut pods = status["pods"].as_array().into_iter().flatten();
        let found =
            pods.find(|p| p["name"] == name && p["namespace"] == namespace).expect("the pod is known");
        found["pid"].as_u64().expect("a process runs in it")
    }

    /// Whether a pod is captured.
    #[track_caller]
    #[must_use]
    pub fn is_captured(&self, pod: &str) -> bool {
        self.get("pod", pod)["metadata"]["annotations"]["ambient.istio.io/redirection"] == "enabled"
    }

    /// The flow records of all nodes, oldest first, filtered by further arguments.
    #[track_caller]
    #[must_use]
    pub fn flows(&self, args: &[&str]) -> Vec<Value> {
        let text = self.ambit(&[&["flows", "-o", "json", "--last", "10000"], args].concat()).ok();
        text.lines().map(|line| serde_json::from_str(line).expect("JSON from ambit flows")).collect()
    }

    /// When the youngest of the allowed connections among the newest records was begun, of those that pass further
    /// arguments; none if none passes. Cheap enough to be asked again and again under load.
    ///
    /// # Panics
    /// If no node answers.
    #[track_caller]
    #[must_use]
    pub fn youngest(&self, args: &[&str]) -> Option<SystemTime> {
        let newest = ["flows", "-o", "json", "--last", "200", "--verdict", "allowed"];
        let text = self.ambit(&[&newest[..], args].concat()).ok();
        let flow = |line| serde_json::from_str::<Value>(line).expect("JSON from ambit flows");
        text.lines().map(|line| begun(&flow(line))).max()
    }

    /// Captures TCP packets on the fabric's bridge from now on.
    #[track_caller]
    #[must_use]
    pub fn capture(&self) -> Capture {
        let folder = self.folder("captures");
        let count = fs::read_dir(&folder).map_or(0, Iterator::count);
        let file = Path::new(&folder).join(format!("{count}.pcap"));
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &format!("{}-fabric", self.name)]);
        // -Z root: written as root, because a dropped user cannot enter the test's folder.
        command.args(["tcpdump", "-i", "br0", "--immediate-mode", "-U", "-Z", "root", "-s", "0", "-w"]);
        command.arg(&file).arg("tcp");
        let capture = Capture { process: Background::start(&mut command), file };
        wait_until("tcpdump listens", Duration::from_secs(10), || {
            capture.process.stderr().contains("listening on") && capture.len() >= 24
        });
        capture
    }

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
        for entry in fs::read_dir(self.run_dir().join("logs")).into_iter().flatten().flatten() {
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

/// What an oracle's client came to.
///
/// # Panics
/// If it printed no summary.
#[track_caller]
#[must_use]
pub fn summary(output: &Output) -> Value {
    let line = output.stdout.lines().last().unwrap_or_default();
    serde_json::from_str(line).unwrap_or_else(|e| panic!("{e} in the summary of {output:?}"))
}

/// Demands that every connection of a summary completed; how many there were.
#[track_caller]
pub fn all_completed(summary: &Value) -> u64 {
    assert_eq!(summary["ok"], true, "a connection failed: {summary:#}");
    summary["connections"]["completed"].as_u64().expect("a count")
}

/// Demands that a load of `rate` connections a second completed as many as that makes in the time it ran, or nearly: 95
/// of 100 in full length, 80 of 100 in a short run, which may be on a slow machine. How many that were.
///
/// # Panics
/// If there were fewer: the load was not what the test says it was.
#[track_caller]
pub fn kept_its_rate(summary: &Value, rate: u64) -> u64 {
    let completed = summary["connections"]["completed"].as_u64().expect("a count");
    let ran_ms = summary["duration_ms"].as_u64().expect("milliseconds");
    let percent = if soak() { 95 } else { 80 };
    let least = rate * ran_ms * percent / 100_000;
    assert!(completed >= least, "{completed} in {ran_ms} ms, {rate}/s has to make {least}: {summary:#}");
    completed
}

/// When the connection of a flow record was begun.
///
/// # Panics
/// If the record does not say.
#[track_caller]
#[must_use]
pub fn begun(flow: &Value) -> SystemTime {
    let ended = flow["time"].as_str().and_then(|time| humantime::parse_rfc3339(time).ok()).expect("a time");
    ended - Duration::from_millis(flow["duration_ms"].as_u64().expect("milliseconds"))
}

/// Waits until `condition` holds; how long that took.
///
/// # Panics
/// If it does not hold in time.
#[track_caller]
pub fn wait_until(what: &str, deadline: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    let start = clock::monotonic();
    loop {
        if condition() {
            return clock::monotonic() - start;
        }
        assert!(clock::monotonic() - start < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

fn split(pod: &str) -> (&str, &str) {
    pod.split_once('/').unwrap_or(("default", pod))
}

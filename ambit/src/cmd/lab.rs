//! `ambit lab …`: the contract of the lab, command by command.
//!
//! Thin: every command is one request to the lab's daemon or one call into the lab's library.

use ambit_lab::rootless;
use ambit_lab::{LabError, LabName};
use clap::Subcommand;

use crate::out;

mod link;
mod logs;
mod objects;
pub(super) mod parts;
mod up;

/// A mesh on this machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which lab; several run side by side
    #[arg(long, global = true, env = "AMBIT_LAB", default_value = "lab")]
    name: LabName,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a lab and wait until every pod is ready and every enrolled pod is captured
    Up(up::UpArgs),
    /// Stop and remove a lab; repeating it is no error
    Down(up::DownArgs),
    /// Write manifests and wait until they are in force on every node
    Apply(objects::ApplyArgs),
    /// Remove objects and wait until that is in force
    Delete(objects::DeleteArgs),
    /// Set (KEY=VALUE) or remove (KEY-) labels of an object
    Label(objects::MarkArgs),
    /// Set (KEY=VALUE) or remove (KEY-) annotations of an object
    Annotate(objects::MarkArgs),
    /// Show objects with their live status
    Get(objects::GetArgs),
    /// Run kubectl with the API server of a lab with `--source kube`
    Kubectl(parts::KubectlArgs),
    /// Run a command in a pod
    Exec(parts::ExecArgs),
    /// Show the log of a part
    Logs(logs::LogsArgs),
    /// End a part (SIGTERM); it stays stopped until started
    Stop(parts::TargetArgs),
    /// Start a part that was stopped
    Start(parts::TargetArgs),
    /// Replace a part; ztunnels and waypoints gracefully, beside the running one
    Restart(parts::TargetArgs),
    /// End a part with SIGKILL; it comes back as a kubelet would bring it back
    Kill(parts::TargetArgs),
    /// Cut the link between a node and the fabric
    Cut(link::NodeArgs),
    /// Make the link between a node and the fabric as it was
    Heal(link::NodeArgs),
    /// Make the link between a node and the fabric lossy, slow or narrow
    Shape(link::ShapeArgs),
    /// Show nodes, programs, pods and where to ask them
    Status(parts::StatusArgs),
}

/// Runs the command and returns its exit code.
pub fn run(args: Args) -> i32 {
    use ambit_lab::control::{Action, LinkChange};
    let lab = &args.name;
    let starts = matches!(args.command, Command::Up(_));
    let everywhere = matches!(&args.command, Command::Down(down) if down.all);
    // Without root, a lab lives in namespaces of its own; this comes before any thread.
    if everywhere && rootless::is_ordinary_user() {
        return up::down_each(&rootless::labs());
    }
    if let Err(error) = rootless::enter(lab, starts) {
        return failed(&error);
    }
    let result = match args.command {
        Command::Up(up) => up::up(lab, &up),
        Command::Down(down) => up::down(lab, &down),
        Command::Apply(apply) => objects::apply(lab, &apply),
        Command::Delete(delete) => objects::delete(lab, &delete),
        Command::Label(mark) => objects::mark(lab, &mark, false),
        Command::Annotate(mark) => objects::mark(lab, &mark, true),
        Command::Get(get) => objects::show(lab, &get),
        Command::Kubectl(kubectl) => ambit_lab::kube::binary::kubectl(lab, &kubectl.args),
        Command::Exec(exec) => parts::exec(lab, &exec),
        Command::Logs(logs) => logs::logs(lab, &logs),
        Command::Stop(target) => parts::act(lab, Action::Stop, &target),
        Command::Start(target) => parts::act(lab, Action::Start, &target),
        Command::Restart(target) => parts::act(lab, Action::Restart, &target),
        Command::Kill(target) => parts::act(lab, Action::Kill, &target),
        Command::Cut(node) => link::change(lab, &node.node, LinkChange::Cut),
        Command::Heal(node) => link::change(lab, &node.node, LinkChange::Heal),
        Command::Shape(shape) => link::shape(lab, &shape),
        Command::Status(status) => parts::status(lab, &status),
    };
    result.unwrap_or_else(|error| failed(&error))
}

/// Tells what went wrong and returns the exit code that says so.
fn failed(error: &LabError) -> i32 {
    match error {
        LabError::Manifest(problems) => {
            out::say(&problems.join("\n"));
            let many = if problems.len() == 1 {
                "1 problem".to_owned()
            } else {
                format!("{} problems", problems.len())
            };
            out::say(&format!("Error: {many} in the manifests; nothing was changed"));
        }
        LabError::NotUp(lab) => out::say(&format!("Error: {}", super::nodes::no_lab(lab))),
        other => out::say(&format!("Error: {}", other.full())),
    }
    error.exit_code()
}

//! Which program a container runs that names only an image: the project's own, beside the lab's.
//!
//! Node proxies, node agents and control planes are the lab's own parts ([`super::members`]): a container of theirs
//! only holds its pod's namespace.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::pod::plan::{ContainerPlan, PodPlan};
use crate::pod::sandbox::VOLUMES;
use crate::pod::volume::{Content, Volume};
use crate::process::expand::expand;
use crate::programs::{Home, spec};

/// Programs that pods run by the name of an image.
const PROGRAMS: [&str; 2] = ["ambit", spec::WAYPOINT];
/// Where a waypoint serves its admin surface.
const ADMIN_SOCKET: &str = "AMBIT_ADMIN_SOCKET";

/// What a container's image is called that names none: the lab does not use it, the API server asks for it.
const NO_IMAGE: &str = "lab";

/// Names an image in every container of a pod, or of an object with a pod's template, that has none.
pub fn complete(object: &mut Value) {
    for spec in ["/spec", "/spec/template/spec"] {
        for list in ["containers", "initContainers"] {
            let containers = object.pointer_mut(&format!("{spec}/{list}")).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten().filter_map(Value::as_object_mut) {
                container.entry("image").or_insert_with(|| json!(NO_IMAGE));
            }
        }
    }
}

/// Gives containers without a command the program of their image, and waypoints what `--set` says of them.
pub fn fill(plan: &mut PodPlan, home: &Home) {
    let uid = plan.uid.clone();
    let volumes = plan.volumes.clone();
    for container in plan.init.iter_mut().chain(&mut plan.containers) {
        let Some(program) = container.declared.image.as_deref().and_then(program) else { continue };
        if !container.argv.is_empty() {
            continue;
        }
        if program == spec::WAYPOINT {
            let mut env = spec::waypoint_settings(&home.config);
            if socket_in_volume(container, &volumes).is_none() {
                // Where the lab and the command line look for it, whatever the image's own place is.
                let socket = spec::waypoint_admin(&home.run, &uid).to_string_lossy().into_owned();
                env.push((ADMIN_SOCKET.to_owned(), socket));
            }
            container.env.retain(|(name, _)| !env.iter().any(|(own, _)| own == name));
            container.env.extend(env);
        }
        container.argv.push(home.binaries.join(program).to_string_lossy().into_owned());
        let args = container.declared.args.iter().flatten();
        container.argv.extend(args.map(|word| expand(word, &container.env)));
    }
}

/// Where in a waypoint's pod's directory its admin socket is, if its place is in a volume of the pod.
///
/// Such a volume is seen at `/var/run/ambit`, over the labs' own directory: the program can put its socket nowhere else.
pub fn admin_socket(plan: &PodPlan) -> Option<PathBuf> {
    let is_waypoint =
        |c: &&ContainerPlan| c.declared.image.as_deref().and_then(program) == Some(spec::WAYPOINT);
    plan.containers.iter().filter(is_waypoint).find_map(|c| socket_in_volume(c, &plan.volumes))
}

fn socket_in_volume(container: &ContainerPlan, volumes: &[Volume]) -> Option<PathBuf> {
    let (_, socket) = container.env.iter().find(|(name, _)| name == ADMIN_SOCKET)?;
    let socket = Path::new(socket);
    let above = container.mounts.iter().filter(|mount| socket.starts_with(&mount.path));
    let mount = above.max_by_key(|mount| mount.path.components().count())?;
    let volume = volumes.iter().find(|v| v.name == mount.volume && v.content == Content::Empty)?;
    let below = socket.strip_prefix(&mount.path).ok()?;
    Some(Path::new(VOLUMES).join(&volume.name).join(&mount.sub_path).join(below))
}

/// The program of an image such as `registry.example/ambit/waypoint:1.2`.
fn program(image: &str) -> Option<&'static str> {
    let name = image.rsplit('/').next()?;
    let name = name.split(['@', ':']).next()?;
    let plain = name.strip_prefix("ambit-").unwrap_or(name);
    PROGRAMS.into_iter().find(|program| *program == plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::plan::Values;

    #[test]
    fn a_container_without_image_gets_one() {
        let mut pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b", "image": "own"}]}});
        complete(&mut pod);
        assert_eq!(
            pod["spec"]["containers"],
            json!([{"name": "a", "image": "lab"}, {"name": "b", "image": "own"}])
        );
        let mut deployment = json!({"spec": {"template": {"spec": {"initContainers": [{"name": "a"}]}}}});
        complete(&mut deployment);
        assert_eq!(deployment["spec"]["template"]["spec"]["initContainers"][0]["image"], "lab");
    }

    #[test]
    fn the_admin_socket_of_a_waypoint_is_found_in_its_volume() {
        let container = json!({
            "name": "istio-proxy", "image": "registry.example/ambit/waypoint:1",
            "env": [{"name": ADMIN_SOCKET, "value": "/var/run/ambit/admin.sock"}],
            "volumeMounts": [
                {"name": "token", "mountPath": "/var/run"}, {"name": "run", "mountPath": "/var/run/ambit"},
            ],
        });
        let mut pod = json!({
            "metadata": {"namespace": "shop", "name": "waypoint-1", "uid": "u"},
            "spec": {
                "nodeName": "node1", "containers": [container],
                "volumes": [{"name": "run", "emptyDir": {}}, {"name": "token", "emptyDir": {}}],
            },
        });
        let socket = |pod: &Value| {
            let pod = serde_json::from_value(pod.clone()).expect("a pod");
            admin_socket(&PodPlan::of(&pod, &Values::new()).expect("a plan"))
        };
        assert_eq!(socket(&pod).as_deref(), Some(Path::new("volumes/run/admin.sock")));
        pod["spec"]["containers"][0]["volumeMounts"] = json!([]);
        assert_eq!(socket(&pod), None);
    }

    #[test]
    fn images_name_programs_by_their_last_word() {
        let rows = [
            ("waypoint", Some("waypoint")),
            ("registry.example:5000/ambit/waypoint:1.2", Some("waypoint")),
            ("ghcr.io/x/ambit-waypoint@sha256:00", Some("waypoint")),
            ("ambit:latest", Some("ambit")),
            ("ztunnel", None),
            ("nginx", None),
            ("", None),
        ];
        for (image, want) in rows {
            assert_eq!(program(image), want, "row {image}");
        }
    }
}

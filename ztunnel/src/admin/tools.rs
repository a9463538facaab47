//! The port of tools that know Istio's ztunnel: `istioctl ztunnel-config` comes here through a forward into the pod.
//!
//! On TCP nobody can tell who calls, so nothing here changes the program: who asks for that is told where it is done.

use std::path::Path;

use ambit_runtime::admin::{Reply, Routes};
use http::StatusCode;

use super::{DumpSource, with_dump};

/// What there is, with relative links: behind a forward the address is another one.
const PAGE: &str = "<!DOCTYPE html>\n<title>ztunnel</title>\n<h1>ztunnel</h1>\n<ul>\n\
    <li><a href=\"config_dump\">config_dump</a>: workloads, services, policies, certificates and connections</li>\n\
    <li>logging, quitquitquit: not on this port</li>\n</ul>\n";

/// The routes of that port; `socket` is where the program can be changed, empty for nowhere.
pub fn tools(source: &DumpSource, socket: &Path) -> Routes {
    let routes = Routes::new().get("/", |_| std::future::ready(Reply::html(PAGE)));
    let routes = refused(with_dump(routes, source), "/logging", &elsewhere(socket));
    refused(
        routes,
        "/quitquitquit",
        "this port only reads; to end ztunnel, delete its pod or send it SIGTERM\n",
    )
}

fn elsewhere(socket: &Path) -> String {
    if socket.as_os_str().is_empty() {
        return "this port only reads; the log filter is set on the admin socket, and there is none \
                (AMBIT_ADMIN_SOCKET is empty)\n"
            .to_owned();
    }
    format!(
        "this port only reads; the log filter is shown and set on the admin socket:\n\
         curl --unix-socket {} -X POST 'http://localhost/logging?level=debug'\n",
        socket.display()
    )
}

/// Answers every method of `path` with a refusal that says where to go.
fn refused(routes: Routes, path: &'static str, text: &str) -> Routes {
    let (get, post) = (text.to_owned(), text.to_owned());
    let reply = |text: &str| Reply::text(StatusCode::METHOD_NOT_ALLOWED, text);
    routes
        .get(path, move |_| std::future::ready(reply(&get)))
        .post(path, move |_| std::future::ready(reply(&post)))
}

//! The console's bundle, built from `console/` and committed beside it; `cargo xtask tidy` holds the two together.

use ambit_runtime::admin::Reply;

/// A file by its path; none if the bundle has no such file.
pub(super) fn file(path: &str) -> Option<Reply> {
    let (content_type, bytes): (_, &'static [u8]) = match path {
        "/" | "/index.html" => {
            ("text/html; charset=utf-8", include_bytes!("../../../console/dist/index.html"))
        }
        "/app.js" => ("text/javascript; charset=utf-8", include_bytes!("../../../console/dist/app.js")),
        "/app.css" => ("text/css; charset=utf-8", include_bytes!("../../../console/dist/app.css")),
        "/icon.svg" => ("image/svg+xml", include_bytes!("../../../console/dist/icon.svg")),
        _ => return None,
    };
    Some(Reply::file(content_type, bytes))
}

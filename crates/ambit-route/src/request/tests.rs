//! Rows of reading a request.

use super::*;

fn request<'a>(target: &'a str, headers: &'a [(&'a str, &'a str)]) -> Request<'a, [(&'a str, &'a str)]> {
    let (path, query) = split_target(target);
    Request { method: "GET", scheme: Scheme::Http, authority: "echo", port: 80, path, query, headers }
}

#[test]
fn targets_split_into_path_and_query() {
    for (target, want) in [
        ("/a", ("/a", None)),
        ("/a?", ("/a", Some(""))),
        ("/a?b=c?d", ("/a", Some("b=c?d"))),
        ("/a#x?y", ("/a", None)),
        ("/a?b#c", ("/a", Some("b"))),
    ] {
        assert_eq!(split_target(target), want, "{target}");
    }
}

#[test]
fn the_first_value_of_a_parameter_counts_and_is_decoded() {
    for (target, want) in [
        ("/?a=1", Some("1")),
        ("/?b=2&a=1&a=3", Some("1")),
        ("/?a", Some("")),
        ("/?a=", Some("")),
        ("/?a=x=y", Some("x=y")),
        ("/?%61=big%20dog", Some("big dog")),
        ("/?a=big+dog", Some("big dog")),
        ("/?a=100%", Some("100%")),
        ("/?a=%zz%4", Some("%zz%4")),
        ("/?A=1", None),
        ("/?aa=1", None),
        ("/?", None),
        ("/", None),
    ] {
        let request = request(target, &[]);
        let got = request.query_value("a");
        assert_eq!(got.as_deref(), want.map(str::as_bytes), "{target}");
    }
}

#[test]
fn grpc_is_told_by_content_type_and_path() {
    for (kind, want) in [
        ("application/grpc", true),
        ("application/grpc+proto", true),
        ("Application/gRPC; charset=utf-8", true),
        ("application/grpc-web", false),
        ("application/json", false),
        ("application/grp", false),
    ] {
        assert_eq!(request("/", &[("Content-Type", kind)]).is_grpc(), want, "{kind}");
    }
    for (path, want) in [
        ("/shop.Cart/Add", Some(("shop.Cart", "Add"))),
        ("/shop.Cart/", None),
        ("//Add", None),
        ("/shop.Cart", None),
        ("/a/b/c", None),
        ("*", None),
    ] {
        assert_eq!(request(path, &[]).grpc_call(), want, "{path}");
    }
}

#[test]
fn cookies_are_found_on_every_line() {
    let headers = [("Cookie", "a=1; b=2"), ("cookie", "c=3;d=x=y; e")];
    let request = request("/", &headers);
    for (name, want) in
        [("a", Some("1")), ("b", Some("2")), ("c", Some("3")), ("d", Some("x=y")), ("e", None), ("f", None)]
    {
        assert_eq!(request.cookie(name), want.map(str::as_bytes), "{name}");
    }
}

//! Contexts as they come and as they go on.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};

use super::{Root, Sampler, TraceId, join};

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const JOINED: &str = "00-0af7651916cd43dd8448eb211c80319c-0000000000000007-01";
const BEGUN: &str = "00-00000000000000000000000000000005-0000000000000007-00";

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut all = HeaderMap::new();
    for (name, value) in lines {
        all.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
    }
    all
}

fn joined(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut all = headers(lines);
    join(&mut all, &Sampler::FOLLOW, || 5, || 7);
    all
}

#[test]
fn traces_are_joined_or_begun() {
    for (given, want) in [
        (&[GOOD][..], JOINED),
        (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"], &JOINED.replace("-01", "-00")),
        // Flags that are not known are not passed on.
        (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-ff"], JOINED),
        (&[" 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], JOINED),
        // Of a later version only the known parts are read.
        (&["01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-what-else"], JOINED),
        (&["fe-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], JOINED),
        (&["ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], BEGUN),
        (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more"], BEGUN),
        (&["0-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"], BEGUN),
        (&["00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"], BEGUN),
        (&["00-00000000000000000000000000000000-b7ad6b7169203331-01"], BEGUN),
        (&["00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01"], BEGUN),
        (&["00-0af7651916cd43dd8448eb211c80319-b7ad6b7169203331-01"], BEGUN),
        (&["00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"], BEGUN),
        (&["00-x", ""], BEGUN),
        (&[GOOD, GOOD], BEGUN),
        (&[""], BEGUN),
        (&[], BEGUN),
    ] {
        let lines: Vec<_> = given.iter().map(|line| ("traceparent", *line)).collect();
        let all = joined(&lines);
        let got: Vec<_> = all.get_all("traceparent").iter().collect();
        assert_eq!(got, [want], "row {given:?}");
    }
}

#[test]
fn a_state_goes_on_with_its_parent_and_within_bounds() {
    let long = format!("a={}", "x".repeat(400));
    let many: Vec<String> = (0..40).map(|n| format!("k{n}=v")).collect();
    let first: String = many[..32].join(",");
    for (parent, given, want) in [
        (GOOD, &["a=b"][..], Some("a=b")),
        (GOOD, &["a=b, c=d", "e=f"], Some("a=b,c=d,e=f")),
        (GOOD, &["a=b,,c=d"], Some("a=b,c=d")),
        (GOOD, &[&long, "b=c", &long], Some(&*format!("{long},b=c"))),
        (GOOD, &[&many.join(",")], Some(&first)),
        (GOOD, &["nonsense"], None),
        (GOOD, &[""], None),
        ("00-x", &["a=b"], None),
    ] {
        let mut lines = vec![("traceparent", parent)];
        lines.extend(given.iter().map(|line| ("tracestate", *line)));
        let all = joined(&lines);
        let got: Vec<_> = all.get_all("tracestate").iter().collect();
        assert_eq!(got, want.into_iter().collect::<Vec<_>>(), "row {given:?}");
    }
}

#[test]
fn b3_is_read_where_there_is_no_traceparent_and_written_as_it_was_spoken() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    let single = |tail: &str| format!("{TRACE}-{SPAN}{tail}");
    for (lines, want) in [
        (vec![("b3", single("-1"))], JOINED),
        (vec![("b3", single("-d"))], JOINED),
        (vec![("b3", single("-1-00000000000000aa"))], JOINED),
        (vec![("b3", single("-0"))], &JOINED.replace("-01", "-00")),
        (vec![("b3", single(""))], &JOINED.replace("-01", "-00")),
        (vec![("b3", "0".to_owned())], BEGUN),
        (vec![("b3", single("-x"))], BEGUN),
        (vec![("b3", single("-1-x"))], BEGUN),
        (
            vec![("b3", "8448eb211c80319c-b7ad6b7169203331-1".to_owned())],
            "00-00000000000000008448eb211c80319c-0000000000000007-01",
        ),
        (
            vec![
                ("x-b3-traceid", TRACE.to_uppercase()),
                ("x-b3-spanid", SPAN.to_owned()),
                ("x-b3-sampled", "true".to_owned()),
            ],
            JOINED,
        ),
        (
            vec![
                ("x-b3-traceid", TRACE.to_owned()),
                ("x-b3-spanid", SPAN.to_owned()),
                ("x-b3-flags", "1".to_owned()),
            ],
            JOINED,
        ),
        (vec![("x-b3-traceid", TRACE.to_owned())], BEGUN),
        (vec![("traceparent", GOOD.to_owned()), ("b3", "f".repeat(32) + "-00000000000000aa-0")], JOINED),
    ] {
        let given: Vec<_> = lines.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let all = joined(&given);
        assert_eq!(all["traceparent"], want, "row {lines:?}");
        if given.iter().any(|(name, _)| *name == "b3") {
            let [_, trace, span, flags] = want.split('-').collect::<Vec<_>>()[..] else { panic!("{want}") };
            let want = format!("{trace}-{span}-{}", &flags[1..]);
            assert_eq!(all["b3"], *want, "row {lines:?}");
        } else {
            assert_eq!(all["x-b3-spanid"], "0000000000000007", "row {lines:?}");
            assert!(!all.contains_key("x-b3-flags"), "row {lines:?}");
        }
    }
}

#[test]
fn attempts_name_their_own_span_and_copies_the_requests() {
    let mut all = headers(&[("traceparent", GOOD)]);
    let (span, trail) = join(&mut all, &Sampler::FOLLOW, || 5, || 7);
    assert_eq!((span.span, span.parent, span.is_sampled), (7, 0xb7ad_6b71_6920_3331, true));
    let copy = trail.clone();
    trail.shared().attempt(9);
    trail.write(&mut all);
    assert_eq!(all["traceparent"], "00-0af7651916cd43dd8448eb211c80319c-0000000000000009-01");
    let mut copied = headers(&[("traceparent", JOINED)]);
    copy.write(&mut copied);
    assert_eq!(copied["traceparent"], JOINED);
    // What a filter has taken out stays out.
    all.remove("traceparent");
    trail.write(&mut all);
    assert!(!all.contains_key("traceparent"));
}

#[test]
fn samplers_decide_by_name_caller_and_id() {
    let (low, high) = (TraceId(1 << 60), TraceId(0x00ff_ffff_ffff_ffff));
    for (name, argument, parent, trace, want) in [
        ("always_on", None, Some(false), low, true),
        ("always_off", None, Some(true), low, false),
        ("traceidratio", Some("0.5"), Some(true), low, false),
        ("traceidratio", Some("0.5"), Some(false), high, true),
        ("traceidratio", Some("0"), None, high, false),
        ("traceidratio", Some("1"), None, low, true),
        ("traceidratio", None, None, low, true),
        ("parentbased_always_on", None, Some(false), high, false),
        ("parentbased_always_on", None, None, low, true),
        ("parentbased_always_off", None, Some(true), low, true),
        ("parentbased_always_off", None, None, low, false),
        ("parentbased_traceidratio", Some("0.25"), Some(true), low, true),
        ("parentbased_traceidratio", Some("0.25"), None, low, false),
        ("parentbased_traceidratio", Some("0.25"), None, high, true),
    ] {
        let sampler = Sampler::named(name, argument).unwrap();
        assert_eq!(sampler.decides(trace, parent), want, "row {name} {argument:?} {parent:?} {trace}");
    }
    for (name, argument) in [
        ("jaeger_remote", None),
        ("", None),
        ("traceidratio", Some("2")),
        ("traceidratio", Some("x")),
        ("traceidratio", Some("NaN")),
    ] {
        assert_eq!(Sampler::named(name, argument), None, "row {name} {argument:?}");
    }
}

#[test]
fn a_share_is_that_share() {
    let Sampler { root, .. } = Sampler::default();
    assert_eq!(root, Root::Share(0.01));
    // Ids spread evenly over the 56 bits that count.
    let taken = (0..100_000_u128).filter(|n| root.takes(TraceId(n * ((1 << 56) / 100_000) + 1))).count();
    assert!((998..=1002).contains(&taken), "{taken}");
}

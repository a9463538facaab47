//! What is set, and what it means.

use std::time::Duration;

use super::{NAMES, Protocol, Settings};
use crate::observe::trace::{Root, Sampler};

const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/");

fn read(set: &[(&str, &str)]) -> Result<Settings, &'static str> {
    let found = |name: &str| {
        assert!(NAMES.contains(&name), "{name} is read and not listed");
        set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    Settings::read(found).map_err(|error| error.name)
}

#[test]
fn nothing_is_exported_unless_an_endpoint_is_set() {
    for (set, want) in [
        (&[][..], None),
        (&[("OTEL_EXPORTER_OTLP_ENDPOINT", "")], None),
        (&[ENDPOINT], Some(("http://collector:4318/base/v1/traces", Protocol::Http))),
        (
            &[ENDPOINT, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")],
            Some(("http://collector:4318/base/", Protocol::Grpc)),
        ),
        (
            &[ENDPOINT, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://other:1/x")],
            Some(("http://other:1/x", Protocol::Http)),
        ),
        (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")], None),
        (&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "otlp"), ("OTEL_SDK_DISABLED", "true")], None),
    ] {
        let target = read(set).unwrap().target;
        let got = target.map(|target| (target.url.to_string(), target.protocol));
        assert_eq!(got, want.map(|(url, protocol)| (url.to_owned(), protocol)), "row {set:?}");
    }
}

#[test]
fn what_means_nothing_is_an_error() {
    for set in [
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318")][..],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "ftp://collector")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector")],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret@collector")],
        &[("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"), ENDPOINT],
        &[("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"), ENDPOINT],
        &[("OTEL_EXPORTER_OTLP_HEADERS", "secret"), ENDPOINT],
        &[("OTEL_EXPORTER_OTLP_HEADERS", "a=%zz"), ENDPOINT],
        &[("OTEL_EXPORTER_OTLP_TIMEOUT", "0"), ENDPOINT],
        &[("OTEL_TRACES_EXPORTER", "zipkin")],
        &[("OTEL_TRACES_SAMPLER", "jaeger_remote")],
        &[("OTEL_RESOURCE_ATTRIBUTES", "a")],
        &[("OTEL_BSP_MAX_QUEUE_SIZE", "-1")],
        &[("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "x")],
    ] {
        assert_eq!(read(set).map(|_| ()), Err(set[0].0), "row {set:?}");
    }
}

#[test]
fn values_are_read_and_secrets_not_shown() {
    let settings = read(&[
        ENDPOINT,
        ("OTEL_EXPORTER_OTLP_HEADERS", "Api-Key=sec%2Cret,tenant=a"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1500"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=lost,deployment.environment=a%20b"),
        ("OTEL_SERVICE_NAME", "kept"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "100"),
        ("OTEL_BSP_SCHEDULE_DELAY", "20"),
    ])
    .unwrap();
    let target = settings.target.as_ref().unwrap();
    assert_eq!(target.headers["api-key"], "sec,ret");
    assert_eq!(target.headers["tenant"], "a");
    assert!(!format!("{settings:?}").contains("sec,ret"), "{settings:?}");
    assert_eq!((target.timeout, settings.delay), (Duration::from_millis(1500), Duration::from_millis(20)));
    assert_eq!((settings.queue_max, settings.batch_max), (100, 100));
    assert_eq!(settings.service_name.as_deref(), Some("kept"));
    assert_eq!(settings.attributes, [("deployment.environment".to_owned(), "a b".to_owned())]);
}

#[test]
fn the_sampler_is_istios_unless_named() {
    let share = |share| Sampler { is_parent_based: true, root: Root::Share(share) };
    for (set, want) in [
        (&[][..], share(0.01)),
        (&[("OTEL_TRACES_SAMPLER_ARG", "0.5")], share(0.5)),
        (
            &[("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.5")],
            share(0.5),
        ),
        (&[("OTEL_TRACES_SAMPLER", "always_on")], Sampler { is_parent_based: false, root: Root::Always }),
    ] {
        assert_eq!(read(set).unwrap().sampler, want, "row {set:?}");
    }
}

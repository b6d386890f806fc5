//! Which grant lets which target be called, and which covers what is asked for.

use super::super::grant::HostGrant;
use super::target;

fn grant(text: &str) -> HostGrant {
    HostGrant::parse(text).unwrap_or_else(|why| panic!("{text}: {why}"))
}

#[test]
fn a_grant_lets_exactly_what_it_names_be_called() {
    for (text, url, expected) in [
        ("shop.example", "https://shop.example/", true),
        ("shop.example", "http://shop.example/", true),
        ("Shop.Example", "https://shop.example/", true),
        ("shop.example", "https://shop.example:8443/", false),
        ("shop.example", "https://a.shop.example/", false),
        ("shop.example", "https://evilshop.example/", false),
        ("shop.example", "https://shop.example.evil.example/", false),
        ("https://shop.example", "https://shop.example/", true),
        ("https://shop.example", "http://shop.example/", false),
        ("https://shop.example", "http://shop.example:443/", false),
        ("http://shop.example", "https://shop.example/", false),
        ("https://shop.example:8443", "https://shop.example:8443/", true),
        ("https://shop.example:8443", "http://shop.example:8443/", false),
        ("https://shop.example:8443", "https://shop.example/", false),
        ("shop.example:8443", "http://shop.example:8443/", true),
        ("*.shop.example", "https://a.shop.example/", true),
        ("*.shop.example", "https://a.b.shop.example/", true),
        ("*.shop.example", "https://shop.example/", false),
        ("*.shop.example", "https://evil-shop.example/", false),
        ("*.shop.example:81", "http://a.shop.example:81/", true),
        ("*.shop.example:81", "http://a.shop.example/", false),
        ("127.0.0.1:9000", "http://127.0.0.1:9000/", true),
        ("127.0.0.1:9000", "http://127.0.0.1:9001/", false),
        ("127.0.0.1:9000", "http://127.0.0.2:9000/", false),
        ("127.0.0.1:9000", "http://localhost:9000/", false),
        ("127.0.0.1:9000", "http://[::ffff:127.0.0.1]:9000/", false),
        ("169.254.169.254", "http://169.254.169.254/latest", true),
        ("localhost:9000", "http://localhost:9000/", true),
        ("localhost:9000", "http://127.0.0.1:9000/", false),
        ("localhost:9000", "http://a.localhost:9000/", false),
        ("[::1]:9000", "http://[::1]:9000/", true),
        ("[0:0:0:0:0:0:0:1]:9000", "http://[::1]:9000/", true),
        ("[fd00::7]", "http://[fd00::8]/", false),
    ] {
        assert_eq!(grant(text).admits(&target(url)), expected, "{text} for {url}");
    }
}

#[test]
fn malformed_grants_are_refused_with_what_would_be_right() {
    for (text, part) in [
        ("", "letters"),
        ("*", "every host"),
        ("*.", "letters"),
        ("*.com", "every host below"),
        ("a.*.example", "letters"),
        ("*shop.example", "letters"),
        ("https://*", "every host"),
        ("ftp://shop.example", "https://"),
        ("https://shop.example/", "without a path"),
        ("shop.example/orders", "without a path"),
        ("me@shop.example", "without user"),
        ("shop.example:", "port"),
        ("shop.example:0", "port"),
        ("shop.example:x", "port"),
        ("shop.example:65536", "port"),
        ("shop.example.", "dot at its end"),
        ("shop..example", "letters"),
        ("shop example", "letters"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("127.1", "four numbers"),
        ("0x7f.0.0.1", "four numbers"),
        ("2130706433", "four numbers"),
        ("127.0.0.01", "four numbers"),
        ("256.0.0.1", "four numbers"),
        ("10.0.0.0/8", "without a path"),
        ("::1", "[::1]"),
        ("[::1", "letters"),
        ("[shop.example]", "IPv6"),
    ] {
        let why = HostGrant::parse(text).expect_err(text);
        assert!(why.contains(part), "{text:?}: {why}");
    }
}

#[test]
fn what_is_asked_for_is_covered_or_said() {
    for (granted, asked, expected) in [
        ("shop.example", "shop.example", true),
        ("shop.example", "https://shop.example", true),
        ("https://shop.example", "shop.example", true),
        ("http://shop.example", "https://shop.example", false),
        ("shop.example:81", "shop.example", false),
        ("*.shop.example", "a.shop.example", true),
        ("*.shop.example", "*.a.shop.example", true),
        ("*.shop.example", "*.shop.example", true),
        ("*.shop.example", "shop.example", false),
        ("a.shop.example", "*.shop.example", false),
        ("127.0.0.1:9000", "127.0.0.1:9000", true),
        ("127.0.0.1:9000", "localhost:9000", false),
    ] {
        assert_eq!(grant(granted).covers(&grant(asked)), expected, "{granted} for {asked}");
    }
}

#[test]
fn of_several_grants_the_one_that_says_most_counts() {
    let private = grant("a.shop.example").into_private();
    let grants = [grant("*.shop.example"), grant("a.shop.example"), private.clone()];
    assert_eq!(HostGrant::pick(&grants, &target("https://a.shop.example/")), Some(&private));
    assert_eq!(HostGrant::pick(&grants[..2], &target("https://a.shop.example/")), Some(&grants[1]));
    assert_eq!(HostGrant::pick(&grants, &target("https://b.shop.example/")), Some(&grants[0]));
    assert_eq!(HostGrant::pick(&grants, &target("https://shop.example/")), None);
}

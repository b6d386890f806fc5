//! URLs that read as one host and lead to another: none gets through but in its plain form.

use super::super::target::{Host, Target};

/// What no script gets to call, however its grants are.
const REFUSED: &[&str] = &[
    "http://2130706433/",
    "http://2852039166/latest/meta-data",
    "http://0x7f000001/",
    "http://0x7F.0.0.1/",
    "http://0x7f.1/",
    "http://0177.0.0.1/",
    "http://0177.0.0.01/",
    "http://017700000001/",
    "http://127.1/",
    "http://127.0.1/",
    "http://0/",
    "http://0x0/",
    "http://127.0.0.1./",
    "http://127.000.000.001/",
    "http://00127.0.0.1/",
    "http://127.0.0.0x1/",
    "http://169.254.43518/",
    "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/",
    "http://localhost./",
    "http://metadata.google.internal./",
    "http://shop.example./",
    "http://127.0.0.1%2f@shop.example/",
    "http://shop.example@127.0.0.1/",
    "http://shop.example:80@127.0.0.1/",
    "http://user:password@shop.example/",
    "http://@shop.example/",
    "http://%31%32%37.0.0.1/",
    "http://127.0.0.1%00.shop.example/",
    "http://loc%61lhost/",
    "http://shop.example%40127.0.0.1/",
    "http://shop.example%2f127.0.0.1/",
    "http://shop.example%23.evil.example/",
    "http://①②⑦.⓪.⓪.①/",
    "http://１２７.0.0.1/",
    "http://127。0。0。1/",
    "http://lo\u{212A}alhost/",
    "http://ｌｏｃａｌｈｏｓｔ/",
    "http://bücher.example/",
    "http://sho\u{200D}p.example/",
    "http://shоp.example/",
    "http://[::1/",
    "http://[0:0:0:0:0:0:0:1]/",
    "http://[0000::0001]/",
    "http://[::FFFF:7f00:1]/",
    "http://[::ffff:7f00:0001]/",
    "http://[fe80::1%25eth0]/",
    "http://[fe80::1%eth0]/",
    "http://::1/",
    "http:///shop.example/",
    "http:shop.example/",
    "http:/shop.example/",
    "http:\\\\shop.example\\",
    "http://shop.example\\@127.0.0.1/",
    "http://shop.example\\.evil.example/",
    "http://shop.example /",
    " http://shop.example/",
    "http://shop.example/a b",
    "http://sh\top.example/",
    "http://shop\n.example/",
    "http://shop.example\r\nhost: evil/",
    "http://shop.example/\u{0}",
    "http://shop..example/",
    "http://.shop.example/",
    "http://sh!op.example/",
    "http://sh*op.example/",
    "http://*.shop.example/",
    "http://shop.example:0/",
    "http://shop.example:65536/",
    "http://shop.example:99999/",
    "http://shop.example:http/",
    "http://shop.example:-1/",
    "https://",
    "https:///",
    "//shop.example/",
    "shop.example/orders",
    "/orders",
    "",
    "file:///etc/passwd",
    "file://localhost/etc/passwd",
    "ftp://shop.example/",
    "gopher://127.0.0.1:6379/_FLUSHALL",
    "unix:///var/run/docker.sock",
    "data:text/plain,hello",
    "javascript:alert(1)",
    "jar:http://shop.example!/",
    "ws://shop.example/",
    "httpx://shop.example/",
];

#[test]
fn a_host_is_written_plainly_or_not_at_all() {
    for url in REFUSED {
        assert!(Target::parse(url).is_err(), "{url:?} leads to {:?}", Target::parse(url));
    }
    assert!(REFUSED.len() > 80);
}

#[test]
fn the_message_shows_the_plain_form_and_never_the_path() {
    let refused = |url: &str| Target::parse(url).expect_err(url);
    assert!(refused("http://0x7f.1/").contains("\"127.0.0.1\""));
    assert!(refused("http://bücher.example/").contains("\"xn--bcher-kva.example\""));
    assert!(refused("http://[0:0:0:0:0:0:0:1]/").contains("\"[::1]\""));
    for url in ["http://shop.example./?token=hush", "http://me:hush@shop.example/", "ftp://shop.example/hush"] {
        assert!(!refused(url).contains("hush"), "{}", refused(url));
    }
}

#[test]
fn plain_urls_are_taken_apart() {
    for (url, host, port, tls) in [
        ("https://shop.example/orders?id=1#x", "shop.example", 443, true),
        ("HTTPS://Shop.Example", "shop.example", 443, true),
        ("http://shop.example:8080/", "shop.example", 8080, false),
        ("http://127.0.0.1:9000/x", "127.0.0.1", 9000, false),
        ("http://[::1]:9000", "[::1]", 9000, false),
        ("https://xn--bcher-kva.example/", "xn--bcher-kva.example", 443, true),
        ("http://a_b.example:80/@:x", "a_b.example", 80, false),
    ] {
        let target = super::target(url);
        assert_eq!((target.host.to_string().as_str(), target.port, target.tls), (host, port, tls), "{url}");
    }
    assert_eq!(super::target("http://[::1]/").host, Host::Ip(std::net::Ipv6Addr::LOCALHOST.into()));
}

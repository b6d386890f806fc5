//! Every special range at its first and last address, and what lies beside it.

use std::io;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use reqwest::dns::{Name, Resolve};

use super::super::address::{Special, special};
use super::super::resolve::{Checked, Looking, Misled, Names};

const LOOPBACK: &str = "
    127.0.0.0 127.0.0.1 127.0.0.2 127.0.1.1 127.1.2.3 127.127.127.127 127.255.255.254 127.255.255.255 ::1";

const PRIVATE: &str = "
    10.0.0.0 10.0.0.1 10.1.2.3 10.96.0.1 10.255.255.254 10.255.255.255
    172.16.0.0 172.16.0.1 172.17.0.1 172.20.10.2 172.30.1.1 172.31.255.254 172.31.255.255
    192.168.0.0 192.168.0.1 192.168.1.1 192.168.99.100 192.168.122.1 192.168.255.254 192.168.255.255
    100.64.0.0 100.64.0.1 100.100.100.199 100.100.100.201 100.100.2.136 100.127.255.254 100.127.255.255
    fc00:: fc00::1 fcff:ffff::1 fd00:: fd00::1 fd00:ec2::253 fd00:ec2::255 fd12:3456:789a:1::1 fdff:ffff:ffff::1
    fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff";

const METADATA: &str = "169.254.169.254 100.100.100.200 192.0.0.192 168.63.129.16 fd00:ec2::254 fd20:ce::254";

const FORBIDDEN: &str = "
    0.0.0.0 0.0.0.1 0.1.2.3 0.127.0.1 0.255.255.254 0.255.255.255 ::
    169.254.0.0 169.254.0.1 169.254.1.1 169.254.169.253 169.254.169.255 169.254.170.2 169.254.170.23 169.254.255.254
    169.254.255.255 fe80:: fe80::1 fe80::a9fe:a9fe fe80:1234::1 fe9f::1 fea0::1 febf:ffff::1
    febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff fec0:: fec0::1 feff::1
    192.0.0.0 192.0.0.1 192.0.0.8 192.0.0.9 192.0.0.170 192.0.0.171 192.0.0.255 192.0.2.0 192.0.2.1 192.0.2.255
    192.88.99.0 192.88.99.1 192.88.99.255 198.18.0.0 198.18.0.1 198.19.0.1 198.19.255.254 198.19.255.255
    198.51.100.0 198.51.100.1 198.51.100.255 203.0.113.0 203.0.113.1 203.0.113.255
    224.0.0.0 224.0.0.1 224.0.0.251 225.1.2.3 232.0.0.1 233.252.0.1 239.255.255.250 239.255.255.255
    240.0.0.0 240.0.0.1 250.1.2.3 254.255.255.255 255.0.0.0 255.255.255.254 255.255.255.255
    ff00:: ff01::1 ff02::1 ff02::2 ff02::fb ff05::2 ff0e::1 ff02::1:ff00:1 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    ::ffff:127.0.0.1 ::ffff:10.0.0.1 ::ffff:172.16.0.1 ::ffff:192.168.0.1 ::ffff:169.254.169.254 ::ffff:0.0.0.0
    ::ffff:100.64.0.1 ::ffff:8.8.8.8 ::ffff:255.255.255.255
    ::127.0.0.1 ::10.0.0.1 ::192.168.0.1 ::169.254.169.254 ::8.8.8.8 ::2 ::ffff ::255.255.255.255
    ::ffff:0:127.0.0.1 ::ffff:0:10.0.0.1
    64:ff9b:: 64:ff9b::1 64:ff9b::7f00:1 64:ff9b::a00:1 64:ff9b::c0a8:1 64:ff9b::a9fe:a9fe 64:ff9b::808:808
    64:ff9b::ffff:ffff 64:ff9b:1:: 64:ff9b:1::1 64:ff9b:1::a9fe:a9fe 64:ff9b:1:ffff::1
    2002:: 2002:7f00:1:: 2002:7f00:1::1 2002:a00:1::1 2002:a9fe:a9fe:: 2002:c0a8:101::1 2002:808:808::1
    2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff
    2001:: 2001::1 2001:0:7f00:1:: 2001:0:a9fe:a9fe::1 2001:0:53aa:64c:0:fbfe:80ff:fffe
    2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:0:ffff:ffff:ffff:ffff:ffff:ffff
    2001:1::1 2001:2::1 2001:3::1 2001:4:112::1 2001:10::1 2001:1f:ffff::1 2001:20::1 2001:2f::1 2001:1ff:ffff::1
    2001:db8:: 2001:db8::1 2001:db8:ffff::1 3fff:: 3fff::1 3fff:fff:ffff::1
    100:: 100::1 100:0:0:1::1 200::1 400::1 5f00:: 5f00::1 1::1 1fff:ffff::1 4000::1 8000::1 a000::1 c000::1 e000::1
    f000::1 fbff::1 fe00::1 fe7f::1";

const PUBLIC: &str = "
    1.0.0.1 1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 93.184.216.34 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0
    168.63.129.15 168.63.129.17 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 191.255.255.255 192.0.1.0
    192.0.1.255 192.0.3.0 192.88.98.255 192.88.100.0 192.167.255.255 192.169.0.0 198.17.255.255 198.20.0.0
    198.51.99.255 198.51.101.0 203.0.112.255 203.0.114.0 223.255.255.255
    2000::1 2001:200::1 2001:4860:4860::8888 2001:db7:ffff::1 2001:db9::1 2003::1 2606:4700:4700::1111 2a00:1450::1
    3ffe::1 3fff:1000::1";

fn all(list: &str) -> Vec<IpAddr> {
    list.split_whitespace().map(|text| text.parse().unwrap_or_else(|_| panic!("{text} is no address"))).collect()
}

#[test]
fn every_special_address_is_known_for_what_it_is() {
    let mut count = 0;
    let mut each = |list: &str, fits: &dyn Fn(Option<Special>) -> bool| {
        for ip in all(list) {
            assert!(fits(special(ip)), "{ip}: {:?}", special(ip));
            count += 1;
        }
    };
    each(LOOPBACK, &|special| special == Some(Special::Loopback));
    each(PRIVATE, &|special| special == Some(Special::Private));
    each(METADATA, &|special| special == Some(Special::Forbidden("the metadata service of a cloud")));
    each(FORBIDDEN, &|special| matches!(special, Some(Special::Forbidden(_))));
    each(PUBLIC, &|special| special.is_none());
    assert!(count >= 200, "only {count} addresses");
}

/// Names that lead to what they are called after: `10.0.0.1+8.8.8.8`.
struct Named;

impl Names for Named {
    fn look_up(&self, name: &str) -> Looking {
        let found: Vec<IpAddr> = name.split('+').filter_map(|text| text.parse().ok()).collect();
        Box::pin(async move { Ok::<_, io::Error>(found) })
    }
}

/// Where a connection to `name` goes; or why nowhere.
fn leads(name: &str, private: bool) -> Result<Vec<IpAddr>, String> {
    let resolver = Checked { names: Arc::new(Named), private };
    let name = Name::from_str(name).expect("any text is a name here");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime can be made");
    let found = runtime.block_on(resolver.resolve(name)).map_err(|error| {
        let misled = error.downcast_ref::<Misled>().map(|misled| format!("{misled} {}", misled.is_private()));
        misled.unwrap_or_else(|| error.to_string())
    });
    Ok(found?.map(|address| address.ip()).collect())
}

#[test]
fn a_name_leads_only_where_its_grant_lets_it() {
    let refused = |list: &str, private| {
        for ip in all(list) {
            let why = leads(&ip.to_string(), private).expect_err("it must not be reached");
            assert!(why.starts_with(&format!("its name leads to {ip}, ")), "{why}");
        }
    };
    for list in [LOOPBACK, PRIVATE, METADATA, FORBIDDEN] {
        refused(list, false);
    }
    for list in [METADATA, FORBIDDEN] {
        refused(list, true);
    }
    for list in [LOOPBACK, PRIVATE, PUBLIC] {
        all(list).into_iter().for_each(|ip| assert_eq!(leads(&ip.to_string(), true), Ok(vec![ip])));
    }
    all(PUBLIC).into_iter().for_each(|ip| assert_eq!(leads(&ip.to_string(), false), Ok(vec![ip])));
}

#[test]
fn one_address_that_is_refused_is_enough() {
    for name in ["8.8.8.8+127.0.0.1", "127.0.0.1+8.8.8.8", "8.8.8.8+1.1.1.1+169.254.169.254", "8.8.8.8+::1"] {
        assert!(leads(name, false).is_err(), "{name}");
    }
    assert_eq!(leads("8.8.8.8+1.1.1.1", false).map(|found| found.len()), Ok(2));
    assert!(leads("8.8.8.8+169.254.169.254", true).is_err());
    assert!(leads("10.0.0.1", false).expect_err("private").ends_with("true"), "the message says how to grant it");
    assert!(leads("169.254.1.1", false).expect_err("link-local").ends_with("false"), "no grant of a name does");
    assert_eq!(leads("nothing.example", false), Err("its name has no address".to_owned()));
    assert_eq!(leads("localhost", false).map(|found| found.len()), Ok(2), "this machine needs no asking");
    assert!(leads("localhost.example", false).is_err());
}

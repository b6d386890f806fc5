//! The whole client, with names that lead where the test says.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use reqwest::Method;
use reqwest::header::HeaderMap;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::resolve::{Looking, Names};
use super::super::{Answer, Call, CallError, Called, HostGrant, Observer, Outbound};
use super::target;

/// Every name leads there.
struct Leading(Vec<IpAddr>);

impl Names for Leading {
    fn look_up(&self, _name: &str) -> Looking {
        let found = self.0.clone();
        Box::pin(async move { Ok(found) })
    }
}

#[derive(Default)]
struct Counted(Mutex<Vec<(Option<String>, &'static str)>>);

impl Observer for Counted {
    fn called(&self, called: Called<'_>) {
        self.0.lock().push((called.host.map(str::to_owned), called.result));
    }
}

/// A service on loopback that answers one request after the other; its port.
async fn service() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("some port is free");
    let port = listener.local_addr().expect("it is bound").port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.expect("a connection comes");
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n").await;
        }
    });
    port
}

async fn call(outbound: &Arc<Outbound>, grant: HostGrant, url: &str) -> Result<Answer, CallError> {
    let call = Call {
        handler: "billing".into(),
        grants: [grant].into(),
        method: Method::GET,
        target: target(url),
        headers: HeaderMap::new(),
        body: None,
        timeout: Duration::from_secs(60),
        max_bytes: 1 << 20,
    };
    outbound.call(call).await
}

#[tokio::test]
async fn a_name_that_leads_to_this_machine_needs_a_grant_that_says_so() {
    let port = service().await;
    let counted = Arc::new(Counted::default());
    let outbound = Outbound::with_names(Arc::new(Leading(vec![Ipv4Addr::LOCALHOST.into()])), counted.clone());
    let (text, url) = (format!("shop.example:{port}"), format!("http://shop.example:{port}/"));
    let grant = HostGrant::parse(&text).expect("a host and a port");
    let answer = call(&outbound, grant.clone().into_private(), &url).await.expect("the service answers");
    assert_eq!(answer.status, 204);
    // The connection that is open now is nobody's who must not have it.
    let why = call(&outbound, grant, &url).await.expect_err("it must not be reached").to_string();
    let expected = "its name leads to 127.0.0.1, a loopback address; where that is meant, the grant says so: \
                    { host = \"shop.example\", private = true }";
    assert_eq!(why, expected);
    assert_eq!(*counted.0.lock(), [(Some(text.clone()), "2xx"), (Some(text), "refused")]);
}

#[tokio::test]
async fn no_grant_of_a_name_leads_to_the_credentials_of_a_cloud() {
    let metadata = Ipv4Addr::new(169, 254, 169, 254);
    let counted = Arc::new(Counted::default());
    let outbound = Outbound::with_names(Arc::new(Leading(vec![metadata.into()])), counted.clone());
    let grant = HostGrant::parse("shop.example").expect("a host").into_private();
    let why = call(&outbound, grant, "http://shop.example/").await.expect_err("it must not be reached").to_string();
    assert_eq!(why, "its name leads to 169.254.169.254, the metadata service of a cloud");
    let grant = HostGrant::parse("other.example").expect("a host");
    let why = call(&outbound, grant, "http://shop.example/?hush").await.expect_err("it is not granted").to_string();
    assert!(why.starts_with("the host \"shop.example\" is not granted to billing;") && !why.contains("hush"), "{why}");
    assert_eq!(*counted.0.lock(), [(Some("shop.example".to_owned()), "refused"), (None, "refused")]);
}

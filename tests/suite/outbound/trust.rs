//! TLS: a service whose certificate somebody vouches for whom this system trusts, and others.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::granting::came_of;
use super::server::Server;
use crate::redis::tls::certificates;
use crate::support::{free_port, run_alone};

const FOLDER: &str = "TEST_CERTIFICATES";

/// A service that speaks TLS, and ends with what is dropped.
struct Secured(Child, u16);

impl Secured {
    fn start(folder: &Path) -> Self {
        let port = free_port();
        let arguments = format!("s_server -quiet -www -accept 127.0.0.1:{port} -cert server.pem -key server.key");
        let mut command = Command::new("openssl");
        command.args(arguments.split(' ')).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.spawn().expect("openssl is there: scripts/test installs it");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        Self(child, port)
    }
}

impl Drop for Secured {
    fn drop(&mut self) {
        // It is ours, and may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_service_is_believed_if_this_system_trusts_its_certificate() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(file("none.pem"), "").expect("a file");
    for (trusted, test) in [("ca.pem", "those_whom_the_system_trusts"), ("none.pem", "those_whom_the_build_trusts")] {
        let mut env = Command::new("env");
        env.args(["-u", "SSL_CERT_DIR"]).arg(format!("SSL_CERT_FILE={}", file(trusted)));
        env.arg(format!("{FOLDER}={}", folder.path().display()));
        run_alone(Some(env), &format!("outbound::trust::{test}"));
    }
}

async fn came(host: &str) -> String {
    let folder = std::env::var(FOLDER).expect("it is started by a test");
    let (secured, server) = (Secured::start(Path::new(&folder)), Server::start().await);
    let port = secured.1;
    came_of(&server, &format!("\"{host}:{port}\""), &format!("https://{host}:{port}/")).await
}

#[tokio::test]
#[ignore = "started by a_service_is_believed_if_this_system_trusts_its_certificate, with variables of its own"]
async fn those_whom_the_system_trusts() {
    assert_eq!(came("localhost").await, "200");
    let other = came("127.0.0.1").await;
    assert!(other.contains("http.get: GET https://127.0.0.1:") && other.contains("not valid for name"), "{other}");
}

#[tokio::test]
#[ignore = "started by a_service_is_believed_if_this_system_trusts_its_certificate, with variables of its own"]
async fn those_whom_the_build_trusts() {
    let unknown = came("localhost").await;
    assert!(unknown.contains("UnknownIssuer"), "{unknown}");
}

//! TLS: a server whose certificate is signed by a CA of one's own, and everybody who must not be believed.

use std::path::Path;
use std::process::Command;

use moontide::bus::BusError;

use super::rig::{Rig, open};
use moontide_stage::server::{Kind, Server, free_port};

fn openssl(folder: &Path, arguments: &str) {
    let made = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output();
    let made = made.expect("openssl is there: scripts/test installs it");
    assert!(made.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&made.stderr));
}

/// A CA, and a certificate for `localhost` and no other name.
pub fn certificates(folder: &Path) {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(folder, &format!("req -x509 {key} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    openssl(folder, &format!("req -new {key} -keyout server.key -out server.csr -subj /CN=server"));
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\n").expect("a file");
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_server_that_its_ca_vouches_for_is_talked_to() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificates(folder.path());
    let file = |name: &str| folder.path().join(name).display().to_string();
    let port = free_port();
    let server = Server::with(
        Kind::Redis,
        &[
            "--tls-port",
            &port.to_string(),
            "--tls-cert-file",
            &file("server.pem"),
            "--tls-key-file",
            &file("server.key"),
            "--tls-ca-cert-file",
            &file("ca.pem"),
            "--tls-auth-clients",
            "no",
        ],
    );
    let ca = file("ca.pem");
    let mut rig = Rig::new(&format!("rediss://localhost:{port}?ca_file={ca}")).await;
    rig.one().await;
    rig.check_all(&server);
    std::fs::write(folder.path().join("empty.pem"), "nothing").expect("a file");
    for (url, says) in [
        (format!("rediss://127.0.0.1:{port}?ca_file={ca}"), "look whether its certificate is for this name"),
        (format!("rediss://localhost:{port}"), "no TLS with it"),
        (format!("rediss://localhost:{port}?ca_file={}", file("empty.pem")), "there is no certificate in it"),
    ] {
        let error = open(&url).await.map(drop).expect_err("it is not believed");
        assert!(matches!(error, BusError::Unusable { .. }), "{url}: {error:?}");
        assert!(error.to_string().contains(says), "{url}: {error}");
    }
    // The wrong kind of port, both ways: such a server hangs up, or waits for more, as one that is away does.
    for (url, says) in [
        (format!("rediss://localhost:{}?ca_file={ca}", server.port()), "is that port for TLS?"),
        (format!("redis://localhost:{port}"), "the connection broke"),
    ] {
        let error = open(&url).await.map(drop).expect_err("it is the wrong port");
        assert!(error.is_passing() && error.to_string().contains(says), "{url}: {error:?}");
    }
}

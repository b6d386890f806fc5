//! `compose.yaml`, without an engine: what it says is held against the handlers and Prometheus' settings, and its instances are
//! started as it says, with other places.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use super::{ask, place};
use moontide_stage::server::{Kind, Server, free_port};

/// Where the image works, and where things are mounted.
const HOME: &str = "/moontide/";
const BUS: &str = "redis://redis:6379";

/// A YAML file of the project.
fn yaml(path: &str) -> Value {
    let path = place(path).display().to_string();
    serde_json::from_str(&ask("compose.py", &[&path], "")).expect("it prints JSON")
}

fn texts(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap_or_else(|| panic!("{list} is no list"));
    list.iter().map(|one| one.as_str().expect("its elements are texts")).collect()
}

/// A service that runs Moontide.
pub struct Service {
    name: String,
    says: Value,
}

/// The services of `compose.yaml` that run Moontide, and what starts its Redis server.
pub fn services() -> (Vec<Service>, Vec<String>) {
    let file = yaml("compose.yaml");
    let all = file["services"].as_object().expect("it has services");
    let ours = all.iter().filter(|(_, says)| says["image"] == "moontide");
    let ours = ours.map(|(name, says)| Service { name: name.clone(), says: says.clone() });
    let redis = texts(&file["services"]["redis"]["command"]).into_iter().map(str::to_owned).collect();
    (ours.collect(), redis)
}

impl Service {
    /// The handlers that it runs.
    pub fn handlers(&self) -> BTreeSet<&str> {
        let command = texts(&self.says["command"]);
        let only = command.iter().position(|word| *word == "--only").expect("each has a part");
        command[only + 1].split(',').collect()
    }

    fn metrics_port(&self) -> &str {
        self.says["environment"]["METRICS_PORT"].as_str().expect("a text, as variables are")
    }

    /// Its command, in `folder` instead of a container.
    pub fn start(&self, folder: &Path, server: &Server) -> Instance {
        let folder = folder.join(&self.name);
        self.mount(&folder);
        let metrics = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let variables = self.says["environment"].as_object().expect("it has variables");
        let variables = variables.iter().map(|(name, value)| match (name.as_str(), value.as_str().expect("a text")) {
            // On loopback: `tests/suite/config.rs` has what the variable itself means.
            ("METRICS_PORT", _) => ("MOONTIDE_METRICS_LISTEN", metrics.to_string()),
            (name, value) => (name, value.replace(BUS, server.url().trim_end_matches('/'))),
        });
        let log = std::fs::File::create(folder.join("log")).expect("the folder is writable");
        let child = Command::new(env!("CARGO_BIN_EXE_moontide"))
            .args(texts(&self.says["command"]))
            .current_dir(&folder)
            .env_clear()
            .envs(variables)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let handlers = self.handlers().into_iter().map(str::to_owned).collect();
        Instance { handlers, metrics, child: child.expect("the binary starts"), log: folder.join("log") }
    }

    /// Puts copies of what is mounted into `folder`.
    fn mount(&self, folder: &Path) {
        std::fs::create_dir(folder).expect("the folder is writable");
        for volume in texts(&self.says["volumes"]) {
            let (from, to) = volume.split_once(':').expect("from and to");
            let to =
                to.strip_suffix(":ro").expect("nothing is written there").strip_prefix(HOME).expect("where it works");
            let copied = Command::new("cp").arg("-r").arg(place(from)).arg(folder.join(to)).status();
            assert!(copied.expect("cp is there").success(), "{from} is there");
        }
    }
}

/// A service that runs; ends with the test.
pub struct Instance {
    pub handlers: BTreeSet<String>,
    pub metrics: SocketAddr,
    child: Child,
    log: std::path::PathBuf,
}

impl Instance {
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server, started as `compose.yaml` starts its own.
pub fn server(command: &[String]) -> Server {
    let [program, options @ ..] = command else { panic!("it has a command") };
    assert_eq!(program, "redis-server");
    Server::with(Kind::Redis, &options.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The worker that each port belonged to.
const PORTS: [(u16, &str); 6] = [
    (9100, "notification"),
    (9101, "audit"),
    (9102, "stock_reservation"),
    (9103, "order_creation"),
    (9104, "stock_compensation"),
    (9105, "cqrs_projection"),
];

#[test]
fn every_handler_runs_in_one_instance_and_its_metrics_are_on_its_port() {
    let (services, _) = services();
    let run: Vec<_> = services.iter().flat_map(Service::handlers).collect();
    assert_eq!(services.len(), 3);
    assert_eq!(run.len(), PORTS.len(), "each once");
    let mut published = BTreeMap::new();
    for service in &services {
        for port in texts(&service.says["ports"]) {
            let (outside, inside) = port.split_once(':').expect("both ports");
            assert_eq!(inside, service.metrics_port(), "{port} leads to its metrics");
            published.insert(outside.parse::<u16>().expect("a port"), service.handlers());
        }
    }
    assert_eq!(published.len(), PORTS.len());
    for (port, handler) in PORTS {
        assert!(published[&port].contains(handler), "{port} is {handler}'s, not {:?}'s", published[&port]);
        assert!(place(&format!("examples/choreography/handlers/{handler}.luau")).exists(), "{handler} is there");
    }
}

#[test]
fn prometheus_scrapes_each_instance_once() {
    let (services, _) = services();
    let expected: BTreeSet<_> =
        services.iter().map(|service| format!("{}:{}", service.name, service.metrics_port())).collect();
    let settings = yaml("config/prometheus.yml");
    let job = &settings["scrape_configs"][0];
    assert_eq!(job["job_name"], "lab7-workers");
    let targets = texts(&job["static_configs"][0]["targets"]);
    assert_eq!(targets.len(), expected.len(), "none is counted twice");
    assert_eq!(targets.into_iter().map(str::to_owned).collect::<BTreeSet<_>>(), expected);
    let checked = Command::new("promtool").args(["check", "config"]).arg(place("config/prometheus.yml")).output();
    let checked = checked.expect("promtool is there: scripts/test installs it");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn what_is_mounted_is_there_and_the_server_keeps_what_it_is_given() {
    let file = yaml("compose.yaml");
    let named = file["volumes"].as_object().expect("it has volumes");
    for (name, says) in file["services"].as_object().expect("it has services") {
        for volume in says["volumes"].as_array().into_iter().flatten() {
            let from = volume.as_str().and_then(|volume| volume.split(':').next()).expect("from and to");
            assert!(named.contains_key(from) || place(from).exists(), "{name}: {from}");
        }
    }
    let server = server(&services().1);
    let setting = |name| server.get::<Vec<String>>(&["CONFIG", "GET", name]).pop().expect("it has the setting");
    assert_eq!((setting("appendonly").as_str(), setting("maxmemory-policy").as_str()), ("yes", "noeviction"));
}

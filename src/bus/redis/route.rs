//! From an address to a connection of the server that is to be written to now.
//!
//! Asks the sentinels where there are some, says who we are, and takes nothing for the master that says it is none. Makes one
//! attempt; when the next one is made is decided in `link`.

use std::path::Path;
use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::io::tcp::{TcpSettings, socket2::TcpKeepalive};
use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, IntoConnectionInfo, Pipeline, RedisConnectionInfo,
    TlsCertificates, Value,
};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::address::{Address, Login, Node, Place};
use super::fault::{self, Fault};
use super::reply;

/// How long a connection may take until it is ready, and how long one sentinel is waited for.
const CONNECT: Duration = Duration::from_secs(2);
const SENTINEL: Duration = Duration::from_millis(500);
/// How much of what a server says unasked is heard, and for how long.
const SAID_MAX: u64 = 4096;
const SAID_WITHIN: Duration = Duration::from_millis(100);
/// A peer that answers nothing, not even the kernel's own questions, is gone after so long; where the kernel can tell.
const SILENCE: Duration = Duration::from_secs(10);

/// The server that was the master when it was last looked for.
#[derive(Clone)]
pub(super) struct Route {
    client: Client,
    login: Login,
    database: i64,
    name: String,
}

impl Route {
    /// Looks for the server. `name` is what `CLIENT LIST` there shows.
    pub async fn find(address: &Address, name: &str) -> Result<Self, Fault> {
        let place = match &address.place {
            Place::Server(node) => tcp(address, node),
            Place::Socket(path) => ConnectionAddr::Unix(path.clone()),
            Place::Sentinels { nodes, service } => tcp(address, &ask(address, nodes, service).await?),
        };
        Ok(Self {
            client: client(address, place).await?,
            login: address.login.clone(),
            database: address.database,
            name: name.to_owned(),
        })
    }

    /// A connection whose answers are waited for as long as `patience` says.
    pub async fn connect(&self, patience: Duration) -> Result<MultiplexedConnection, Fault> {
        let connecting = timeout(CONNECT, self.introduced(patience)).await;
        match connecting.unwrap_or_else(|_| Err(self.too_slow())) {
            Err(Fault::Away(cause)) => Err(self.turned_away().await.unwrap_or(Fault::Away(cause))),
            other => other,
        }
    }

    /// A connection that listens to channels.
    pub async fn listen(&self) -> Result<PubSub, Fault> {
        super::tls::install();
        let info = self.client.get_connection_info().clone().set_redis_settings(self.settings());
        let client = Client::open(info).map_err(|error| fault::of(&error))?;
        let opening = timeout(CONNECT, client.get_async_pubsub()).await;
        opening.map_err(|_| self.too_slow())?.map_err(|error| fault::of(&error))
    }

    /// What a connection says of itself that cannot be introduced once it listens.
    fn settings(&self) -> RedisConnectionInfo {
        let mut settings = RedisConnectionInfo::default().set_skip_set_lib_name().set_db(self.database);
        if let Some(user) = &self.login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &self.login.password {
            settings = settings.set_password(password);
        }
        settings
    }

    fn too_slow(&self) -> Fault {
        let tls = matches!(self.client.get_connection_info().addr(), ConnectionAddr::TcpTls { .. });
        let hint = if tls { "; is that port for TLS?" } else { "" };
        Fault::Away(format!("no connection with it within {CONNECT:?}{hint}"))
    }

    /// What the server says to those that it turns away: it does so before it is asked, which the client library does not
    /// hear.
    async fn turned_away(&self) -> Option<Fault> {
        let ConnectionAddr::Tcp(host, port) = self.client.get_connection_info().addr() else { return None };
        let mut said = Vec::new();
        let hearing = async {
            let server = TcpStream::connect((host.as_str(), *port)).await.ok()?;
            server.take(SAID_MAX).read_to_end(&mut said).await.ok()
        };
        timeout(SAID_WITHIN, hearing).await.ok()??;
        let (code, detail) = std::str::from_utf8(&said).ok()?.strip_prefix('-')?.trim_end().split_once(' ')?;
        Some(fault::of_code(code, detail))
    }

    /// Says who we are and asks who it is, in one round trip.
    async fn introduced(&self, patience: Duration) -> Result<MultiplexedConnection, Fault> {
        let connection = open(&self.client, patience).await?;
        let mut hello: Vec<_> = login(&self.login).into_iter().collect();
        if self.database != 0 {
            hello.push(command(&["SELECT", &self.database.to_string()]));
        }
        let must = hello.len();
        hello.extend([command(&["CLIENT", "SETNAME", &self.name]), command(&["ROLE"])]);
        // Not as a pipeline: its error would not say what came back instead of an answer.
        let answers = hello.iter().map(|command| {
            let mut connection = connection.clone();
            async move { connection.send_packed_command(command).await.map_err(|error| fault::of(&error)) }
        });
        let mut answers = join_all(answers).await.into_iter().collect::<Result<Vec<_>, _>>()?;
        let role = fault::checked(answers.pop().unwrap_or_default());
        for (at, answer) in answers.into_iter().enumerate() {
            let fault = fault::checked(answer).err();
            // Whoever may not give himself a name is let in nevertheless.
            if let Some(fault) = fault.filter(|fault| at < must || !matches!(fault, Fault::Barred(_))) {
                return Err(fault);
            }
        }
        is_master(role).map(|()| connection)
    }
}

fn command(words: &[&str]) -> Cmd {
    let mut command = Cmd::new();
    command.arg(words);
    command
}

/// The name of connections of `instance`; it must be one word.
pub(super) fn name(instance: &str) -> String {
    let word: String = instance.chars().map(|c| if c.is_ascii_graphic() { c } else { '-' }).collect();
    format!("moontide:{word}")
}

/// Whoever may not ask believes it.
fn is_master(role: Result<Value, Fault>) -> Result<(), Fault> {
    let role = match role {
        Ok(role) => reply::list(role)?.into_iter().next().map(reply::text).transpose()?,
        Err(Fault::Barred(_)) => None,
        Err(fault) => return Err(fault),
    };
    match role.as_deref() {
        Some("slave" | "replica") => {
            Err(Fault::Elsewhere("it is a replica and takes no writes; looking for the master".into()))
        }
        Some("sentinel") => Err(Fault::Barred("it is a sentinel; write \"redis+sentinel://host,host/service\"".into())),
        _ => Ok(()),
    }
}

fn tcp(address: &Address, node: &Node) -> ConnectionAddr {
    let Node { host, port } = node.clone();
    match address.tls {
        true => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
        false => ConnectionAddr::Tcp(host, port),
    }
}

/// A client that says nothing by itself.
async fn client(address: &Address, place: ConnectionAddr) -> Result<Client, Fault> {
    let keepalive = TcpKeepalive::new().with_time(SILENCE / 2).with_interval(SILENCE / 4);
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let tcp = tcp.set_user_timeout(SILENCE);
    let info = place.into_connection_info().map_err(|error| fault::of(&error))?;
    let quiet = RedisConnectionInfo::default().set_skip_set_lib_name();
    let info = info.set_tcp_settings(tcp).set_redis_settings(quiet);
    let client = match &address.ca_file {
        Some(file) => {
            Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem(file).await?) })
        }
        None => Client::open(info),
    };
    client.map_err(|error| fault::of(&error))
}

async fn pem(file: &Path) -> Result<Vec<u8>, Fault> {
    let read = tokio::task::spawn_blocking({
        let file = file.to_owned();
        move || std::fs::read(file)
    });
    let barred = |why: String| Fault::Barred(format!("?ca_file={}: {why}", file.display()));
    let pem = read.await.map_err(|error| barred(error.to_string()))?.map_err(|error| barred(error.to_string()))?;
    match pem.windows(11).any(|words| words == b"CERTIFICATE") {
        true => Ok(pem),
        false => Err(barred("there is no certificate in it; they are expected in PEM form".into())),
    }
}

async fn open(client: &Client, patience: Duration) -> Result<MultiplexedConnection, Fault> {
    super::tls::install();
    let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(Some(patience));
    let opening = client.get_multiplexed_async_connection_with_config(&config);
    opening.await.map_err(|error| fault::of(&error))
}

fn login(login: &Login) -> Option<Cmd> {
    let password = login.password.as_ref()?;
    let mut auth = redis::cmd("AUTH");
    if let Some(user) = &login.user {
        auth.arg(user);
    }
    auth.arg(password);
    Some(auth)
}

// --- sentinels ---

/// Where the master is, from the first sentinel that knows.
async fn ask(address: &Address, nodes: &[Node], service: &str) -> Result<Node, Fault> {
    let mut problems = Vec::new();
    for node in nodes {
        let asking = timeout(SENTINEL, ask_one(address, node, service));
        match asking.await.unwrap_or_else(|_| Err(Fault::Away(format!("no answer within {SENTINEL:?}")))) {
            Ok(Some(master)) => return Ok(master),
            Ok(None) => problems.push(format!("{node} watches no service {service:?}")),
            Err(fault) => problems.push(format!("{node}: {}", fault.cause())),
        }
    }
    Err(Fault::Away(format!("no sentinel knows the master: {}", problems.join("; "))))
}

async fn ask_one(address: &Address, node: &Node, service: &str) -> Result<Option<Node>, Fault> {
    let client = client(address, tcp(address, node)).await?;
    let mut connection = open(&client, SENTINEL).await?;
    let mut request = Pipeline::new();
    if let Some(login) = login(&address.sentinel_login) {
        request.add_command(login);
    }
    request.cmd("SENTINEL").arg("GET-MASTER-ADDR-BY-NAME").arg(service);
    let answers = connection.send_packed_commands(&request, 0, request.len()).await;
    let answers = answers.map_err(|error| fault::of(&error))?.into_iter().map(fault::checked);
    let answer = answers.collect::<Result<Vec<_>, _>>()?.pop().unwrap_or_default();
    let parts = reply::list(answer)?.into_iter().map(reply::text).collect::<Result<Vec<_>, _>>()?;
    let [host, port] = &parts[..] else { return Ok(None) };
    let port = port.parse().map_err(|_| Fault::Away(format!("{port:?} is no port")))?;
    Ok(Some(Node { host: host.clone(), port }))
}

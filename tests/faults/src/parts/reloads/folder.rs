//! The handlers folder of a round: what was saved there, how, and what must serve because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use moontide::bus::HandlerReport;
use moontide::config::Config;
use moontide::script::{Sources, load};
use rand::Rng as _;
use rand::rngs::SmallRng;

use super::scripts::{self, MODULES, module_of};

/// Handlers in the folder.
pub const HANDLERS: usize = 48;
/// The one whose broken versions never end: its time is short, so nothing good is saved there while the storm goes on.
const LOOPER: usize = HANDLERS - 1;
/// Between the halves of a file that is written slowly.
const HALVES: Duration = Duration::from_millis(200);
/// A writer that is silent for longer may be taken for gone.
const HALVES_MAX: Duration = Duration::from_millis(800);

/// A file as it was saved last.
#[derive(Clone, Default)]
struct Saved {
    /// `None`: it was removed, or is broken.
    good: Option<String>,
    there: bool,
    /// Whole ones since both processes agreed: either may see any of them beside any of another file.
    recent: BTreeSet<String>,
}

impl Saved {
    fn good(&mut self, generation: String) {
        self.recent.insert(generation.clone());
        (self.good, self.there) = (Some(generation), true);
    }

    fn broken(&mut self) {
        (self.good, self.there) = (None, true);
    }

    /// False: it was not there.
    fn removed(&mut self) -> bool {
        self.good = None;
        std::mem::take(&mut self.there)
    }

    fn agreed(&mut self) {
        self.recent = self.good.iter().cloned().collect();
    }
}

/// What the processes must say of a handler.
#[derive(Debug, PartialEq)]
enum Wanted {
    Gone,
    /// This version serves.
    Live(String),
    /// One of those serves that may.
    Broken,
    /// It may have to wait for one that is broken and shares its module.
    Either,
}

pub struct Folder {
    root: PathBuf,
    config: Config,
    generation: u64,
    handlers: Vec<Saved>,
    modules: Vec<Saved>,
    /// What every whole file holds, by its generation.
    whole: BTreeMap<String, String>,
    /// Versions of each handler that may serve; the empty one: none does.
    may_serve: Vec<BTreeSet<String>>,
    /// Halves that lay about for so long that they may have been taken for files.
    pub half_allowed: bool,
}

impl Folder {
    /// Everything good.
    pub fn new(root: &Path, config: Config) -> Self {
        let mut folder = Self {
            root: root.to_owned(),
            config,
            generation: 0,
            handlers: vec![Saved::default(); HANDLERS],
            modules: vec![Saved::default(); MODULES],
            whole: BTreeMap::from([("none".to_owned(), String::new())]),
            may_serve: vec![BTreeSet::new(); HANDLERS],
            half_allowed: false,
        };
        fs::create_dir_all(folder.root.join("lib")).expect("a folder");
        folder.mend();
        folder
    }

    /// Saves something good wherever something else lies.
    pub fn mend(&mut self) {
        for module in 0..MODULES {
            if self.modules[module].good.is_none() {
                self.save_module(module, fs_write);
            }
        }
        for handler in 0..HANDLERS {
            if self.handlers[handler].good.is_none() {
                self.save_good(handler, fs_write);
            }
        }
    }

    /// Saves some of the files, good and broken, one after the other.
    pub fn burst(&mut self, rng: &mut SmallRng) {
        for handler in 0..HANDLERS {
            let way = WAYS[rng.random_range(0..WAYS.len())];
            match rng.random_range(0..20) {
                _ if handler == LOOPER => self.save_looping(),
                0..11 => self.save_good(handler, way),
                11..15 => self.save_broken(handler, rng, way),
                15 => self.remove(handler),
                _ => {}
            }
        }
        for module in 0..MODULES {
            match rng.random_range(0..8) {
                0..3 => self.save_module(module, WAYS[rng.random_range(0..WAYS.len())]),
                3 => self.break_module(module, rng),
                4 => self.remove_module(module),
                _ => {}
            }
        }
    }

    /// Saves some files slowly, each in two halves of which the first one alone would load.
    pub async fn slow_burst(&mut self, rng: &mut SmallRng) {
        let chosen: Vec<usize> = (0..LOOPER).filter(|_| rng.random_bool(0.3)).collect();
        let began = Instant::now();
        let mut rest = Vec::new();
        for handler in chosen {
            let generation = self.next(handler);
            let [half, other] = scripts::halves(handler, &generation);
            let mut file = fs::File::create(self.file(handler)).expect("a file");
            std::io::Write::write_all(&mut file, half.as_bytes()).expect("half a file");
            rest.push((handler, generation, file, half, other));
        }
        tokio::time::sleep(HALVES).await;
        for (handler, generation, mut file, half, other) in rest {
            std::io::Write::write_all(&mut file, other.as_bytes()).expect("the other half");
            self.is_whole(handler, generation, half + &other);
        }
        self.half_allowed |= began.elapsed() > HALVES_MAX;
    }

    fn file(&self, handler: usize) -> PathBuf {
        self.root.join(format!("h{handler}.luau"))
    }

    fn module_file(&self, module: usize) -> PathBuf {
        self.root.join(format!("lib/m{module}.luau"))
    }

    fn next(&mut self, number: usize) -> String {
        self.generation += 1;
        format!("{number}.{}", self.generation)
    }

    fn save_good(&mut self, handler: usize, way: Way) {
        let generation = self.next(handler);
        let text = scripts::handler(handler, &generation);
        self.save(handler, text.as_bytes(), way);
        self.is_whole(handler, generation, text);
    }

    fn is_whole(&mut self, handler: usize, generation: String, text: String) {
        self.whole.insert(generation.clone(), text);
        self.handlers[handler].good(generation);
        self.may_now_serve(handler);
    }

    fn save_broken(&mut self, handler: usize, rng: &mut SmallRng, way: Way) {
        let generation = self.next(handler);
        let bytes = scripts::broken_handler(rng, handler, &generation);
        self.save(handler, &bytes, way);
        self.handlers[handler].broken();
    }

    fn save_looping(&mut self) {
        let generation = self.next(LOOPER);
        self.save(LOOPER, &scripts::looping(LOOPER, &generation), fs_write);
        self.handlers[LOOPER].broken();
    }

    fn save(&mut self, handler: usize, bytes: &[u8], way: Way) {
        let file = self.file(handler);
        if way(&file, bytes) == Left::AMoment && self.handlers[handler].there {
            self.may_serve[handler].insert(String::new());
        }
    }

    fn remove(&mut self, handler: usize) {
        if self.handlers[handler].removed() {
            fs::remove_file(self.file(handler)).expect("it was there");
            self.may_serve[handler].insert(String::new());
        }
    }

    fn save_module(&mut self, module: usize, way: Way) {
        let generation = self.next(module);
        let text = scripts::module(&generation);
        way(&self.module_file(module), text.as_bytes());
        self.whole.insert(generation.clone(), text);
        self.modules[module].good(generation);
        users(module).for_each(|handler| self.may_now_serve(handler));
    }

    fn break_module(&mut self, module: usize, rng: &mut SmallRng) {
        let generation = self.next(module);
        fs_write(&self.module_file(module), &scripts::broken_module(rng, &generation));
        self.modules[module].broken();
    }

    fn remove_module(&mut self, module: usize) {
        if self.modules[module].removed() {
            fs::remove_file(self.module_file(module)).expect("it was there");
        }
    }

    fn may_now_serve(&mut self, handler: usize) {
        let none = BTreeSet::from(["none".to_owned()]);
        let modules = module_of(handler).map_or(&none, |module| &self.modules[module].recent);
        let generations = self.handlers[handler].recent.iter();
        let pairs = generations.flat_map(|generation| modules.iter().map(move |module| (generation, module)));
        let versions: Vec<_> =
            pairs.filter_map(|(generation, module)| self.version(handler, generation, module)).collect();
        self.may_serve[handler].extend(versions);
    }

    /// The version that lies there, if it can be loaded.
    fn version_now(&self, handler: usize) -> Option<String> {
        let generation = self.handlers[handler].good.as_deref()?;
        let module = match module_of(handler) {
            Some(module) => self.modules[module].good.as_deref()?,
            None => "none",
        };
        self.version(handler, generation, module)
    }

    /// The version that these generations of a handler and its module make; `None`: they were never saved.
    pub fn version(&self, handler: usize, generation: &str, module: &str) -> Option<String> {
        let name = format!("h{handler}");
        let mut files = vec![(format!("{name}.luau"), self.whole.get(generation)?)];
        let text = self.whole.get(module)?;
        files.extend(module_of(handler).map(|module| (format!("lib/m{module}.luau"), text)));
        let sources = Sources::new(files.into_iter().map(|(path, text)| (path, text.as_str().into())));
        let program = load(&format!("{name}.luau"), &Arc::new(sources), &self.config.options_for("h0")).ok()?;
        Some(program.version.to_string())
    }

    fn wanted(&self, handler: usize) -> Wanted {
        if !self.handlers[handler].there {
            return Wanted::Gone;
        }
        let Some(version) = self.version_now(handler) else { return Wanted::Broken };
        let is_broken = |other: usize| self.handlers[other].there && self.handlers[other].good.is_none();
        match module_of(handler) {
            Some(module) if users(module).any(is_broken) => Wanted::Either,
            _ => Wanted::Live(version),
        }
    }

    /// What one of the processes says that it cannot be so; `None`: all is as it must be, and is now the past.
    pub fn settle(&mut self, processes: &[String], reports: &[HandlerReport]) -> Option<String> {
        let mut serving = Vec::new();
        for handler in 0..HANDLERS {
            let mut serves = BTreeSet::new();
            for process in processes {
                let name = format!("h{handler}");
                let report = reports.iter().find(|report| report.instance == *process && report.handler == name);
                if !self.agrees(handler, report) {
                    let wanted = self.wanted(handler);
                    return Some(format!("{process} says of {name}: {report:?}; wanted is {wanted:?}"));
                }
                serves.insert(report.map(|report| report.version.clone()).unwrap_or_default());
            }
            if self.wanted(handler) == Wanted::Either {
                // It is not settled yet: a later look at the folder may still bring another one.
                serves.extend(self.may_serve[handler].iter().cloned());
            }
            serving.push(serves);
        }
        self.may_serve = serving;
        self.handlers.iter_mut().chain(&mut self.modules).for_each(Saved::agreed);
        None
    }

    fn agrees(&self, handler: usize, report: Option<&HandlerReport>) -> bool {
        let may = |version: &str| self.may_serve[handler].contains(version);
        match (self.wanted(handler), report) {
            (Wanted::Gone, report) => report.is_none(),
            // A file that is no text, where nothing serves, is no handler yet.
            (Wanted::Broken, None) => may(""),
            (_, None) => false,
            (Wanted::Live(version), Some(report)) => report.state == "live" && report.version == version,
            (Wanted::Broken, Some(report)) => report.state == "broken" && may(&report.version),
            (Wanted::Either, Some(report)) => may(&report.version),
        }
    }

    /// Handlers whose files are broken, and that must serve all the same.
    pub fn broken_and_serving(&self) -> Vec<usize> {
        let serves = |handler: &usize| !self.may_serve[*handler].contains("");
        (0..HANDLERS).filter(|handler| self.wanted(*handler) == Wanted::Broken).filter(serves).collect()
    }
}

fn users(module: usize) -> std::ops::Range<usize> {
    module * scripts::USERS..(module + 1) * scripts::USERS
}

/// Whether there was no file of that name for a moment.
#[derive(PartialEq)]
enum Left {
    AMoment,
    Never,
}

/// Writes a file as some program would.
type Way = fn(&Path, &[u8]) -> Left;

const WAYS: &[Way] = &[fs_write, write_and_rename, remove_and_write, back_up_and_write];

fn fs_write(path: &Path, bytes: &[u8]) -> Left {
    fs::write(path, bytes).expect("a file");
    Left::Never
}

fn write_and_rename(path: &Path, bytes: &[u8]) -> Left {
    let temporary = path.with_extension("luau.tmp");
    fs::write(&temporary, bytes).expect("a file");
    fs::rename(temporary, path).expect("a rename");
    Left::Never
}

fn remove_and_write(path: &Path, bytes: &[u8]) -> Left {
    drop(fs::remove_file(path));
    fs::write(path, bytes).expect("a file");
    Left::AMoment
}

fn back_up_and_write(path: &Path, bytes: &[u8]) -> Left {
    let backup = path.with_extension("luau~");
    let backed = fs::rename(path, &backup).is_ok();
    fs::write(path, bytes).expect("a file");
    if backed {
        fs::remove_file(backup).expect("the backup goes");
    }
    Left::AMoment
}

//! The data of one guest's store, and the linker that joins a guest's imports to it.
//!
//! The one idea: everything links and little is given. The clocks, the randomness and the sockets of `wasmtime-wasi` are
//! replaced by ours; its files have no directory, its environment is empty, its output is captured; `wasi:http` goes through
//! our hooks. What a plugin imports beyond this does not exist, and is refused when it is installed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime::component::{HasSelf, Linker, ResourceTable};
use wasmtime_wasi::p2::bindings::{clocks, random, sockets};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

use crate::attempt::{Class, Failure, Level, Progress};
use crate::bindings::step::reipaz::step::{log, progress, types};
use crate::breaker::Parked;
use crate::guest::clock::{Clock, ClockView, Clocks};
use crate::guest::limiter::Limiter;
use crate::guest::notebook::{Notebook, Stream, note};
use crate::guest::random::{HasRandomness, Randomness};
use crate::guest::sockets::{HasNoSockets, NoSockets};
use crate::guest::stdio::Captured;
use crate::http::Outbound;
use crate::limits;

/// What a guest asked for and did not get, each time the first: it decides what its failure means, whatever the guest makes
/// of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Denials(Arc<Mutex<Denied>>);

#[derive(Debug, Default)]
struct Denied {
    denied: Option<(&'static str, String)>,
    parked: Option<Parked>,
    /// A call of it went out.
    called: bool,
    /// It ended before its time: what it was still sending is not whole.
    cut: bool,
}

impl Denials {
    pub(crate) fn add(&self, code: &'static str, message: String) {
        self.lock().denied.get_or_insert((code, message));
    }

    /// A circuit breaker did not let a call through.
    pub(crate) fn park(&self, parked: Parked) {
        self.lock().parked.get_or_insert(parked);
    }

    /// A call goes out.
    pub(crate) fn call(&self) {
        self.lock().called = true;
    }

    pub(crate) fn cut(&self) {
        self.lock().cut = true;
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.lock().cut
    }

    /// The failure that an attempt has if it fails.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let denied = self.lock();
        denied.denied.as_ref().map(|(code, message)| Failure::new(Class::Denied, *code, message.clone()))
    }

    /// Whether it called somebody, and what it is parked for if it fails of nothing else.
    pub(crate) fn calls(&self) -> (bool, Option<Parked>) {
        let denied = self.lock();
        (denied.called, denied.parked.clone().filter(|_| denied.denied.is_none()))
    }

    fn lock(&self) -> MutexGuard<'_, Denied> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Says whether a guest should go on.
pub(crate) trait Wanted: Send + Sync {
    fn wanted(&self) -> bool;
}

/// See the module.
pub(crate) struct State {
    table: ResourceTable,
    /// Made when it is first asked for; most Rust guests never do.
    wasi: Option<WasiCtx>,
    http: WasiHttpCtx,
    outbound: Outbound,
    clock: Clock,
    randomness: Randomness,
    denials: Denials,
    notebook: Notebook,
    wanted: Arc<dyn Wanted>,
    pub(crate) limiter: Limiter,
}

/// What a store starts from.
pub(crate) struct World {
    pub(crate) seed: [u8; 32],
    pub(crate) memory_bytes: usize,
    pub(crate) clock: Clock,
    pub(crate) notebook: Notebook,
    pub(crate) denials: Denials,
    pub(crate) outbound: Outbound,
    pub(crate) wanted: Arc<dyn Wanted>,
}

impl State {
    pub(crate) fn new(world: World) -> Self {
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits::HANDLES);
        Self {
            table,
            wasi: None,
            http: WasiHttpCtx::new(),
            outbound: world.outbound,
            clock: world.clock,
            randomness: Randomness::new(world.seed),
            denials: world.denials,
            notebook: world.notebook,
            wanted: world.wanted,
            limiter: Limiter::new(world.memory_bytes),
        }
    }
}

fn virtual_wasi(notebook: &Notebook) -> WasiCtx {
    WasiCtx::builder()
        .stdout(Captured { notebook: notebook.clone(), stream: Stream::Out })
        .stderr(Captured { notebook: notebook.clone(), stream: Stream::Err })
        .build()
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| virtual_wasi(&self.notebook));
        WasiCtxView { ctx, table: &mut self.table }
    }
}

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.outbound, table: &mut self.table, ctx: &mut self.http }
    }
}

impl types::Host for State {}

impl log::Host for State {
    fn log(&mut self, level: log::Level, message: String, fields: Vec<(String, String)>) {
        let level = match level {
            log::Level::Trace => Level::Trace,
            log::Level::Debug => Level::Debug,
            log::Level::Info => Level::Info,
            log::Level::Warn => Level::Warn,
            log::Level::Error => Level::Error,
        };
        self.notebook.log(level, message, fields);
    }
}

impl progress::Host for State {
    fn report(&mut self, done: u64, total: Option<u64>, text: String) -> bool {
        self.notebook.progress(Progress { done, total, note: note(text) });
        self.wanted.wanted()
    }
}

/// Everything that a step may import.
pub(crate) fn step_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = wasi_linker(engine)?;
    log::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    progress::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    types::add_to_linker::<_, HasSelf<State>>(&mut linker, |state| state)?;
    Ok(linker)
}

/// The virtual WASI alone, for the jq component.
pub(crate) fn wasi_linker(engine: &wasmtime::Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker)?;
    // From here on ours replace theirs.
    linker.allow_shadowing(true);
    let l = &mut linker;
    clocks::wall_clock::add_to_linker::<_, Clocks>(l, State::clocks)?;
    clocks::monotonic_clock::add_to_linker::<_, Clocks>(l, State::clocks)?;
    random::random::add_to_linker::<_, HasRandomness>(l, |state| &mut state.randomness)?;
    random::insecure::add_to_linker::<_, HasRandomness>(l, |state| &mut state.randomness)?;
    random::insecure_seed::add_to_linker::<_, HasRandomness>(l, |state| &mut state.randomness)?;
    sockets::tcp_create_socket::add_to_linker::<_, HasNoSockets>(l, State::no_sockets)?;
    sockets::udp_create_socket::add_to_linker::<_, HasNoSockets>(l, State::no_sockets)?;
    sockets::ip_name_lookup::add_to_linker::<_, HasNoSockets>(l, State::no_sockets)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

impl State {
    fn clocks(&mut self) -> ClockView<'_> {
        ClockView { clock: &self.clock, table: &mut self.table }
    }

    fn no_sockets(&mut self) -> NoSockets<'_> {
        NoSockets { denials: &self.denials }
    }
}

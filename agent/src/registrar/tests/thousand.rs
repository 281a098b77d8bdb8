//! A thousand agents in one account, against the throttle of the local cloud. docs/operations.md publishes the figures;
//! `tests/bin/thousand-chart` draws the calls.

use local_cloud::{ActionClass, Buckets, Rate, Throttle};

use super::*;
use crate::aws::CallError;
use crate::target_group::{Target, TargetGroup, TargetHealth, TargetType};

const AGENTS: usize = 1000;
/// A fleet may need this many times the least that any client could need.
const FACTOR: f64 = 1.3;
/// The part of the account's Describe calls that an idle fleet may use.
const IDLE: f64 = 0.2;
/// How long a call takes.
const LATENCY: Duration = Duration::from_millis(20);
/// How long the balancer checks a target before it is healthy.
const CHECKED: Duration = Duration::from_secs(40);
const CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How often another program makes a call of each kind.
const OTHERS: Duration = Duration::from_secs(10);
/// Far above what any phase takes.
const LIMIT: Duration = Duration::from_secs(3600);
/// A target's default delay, which is also how long a drain may take.
const DELAY: Duration = Duration::from_secs(300);

/// The least time for this many calls: at first the whole burst, then the rate.
fn least(rate: Rate, calls: usize) -> Duration {
    let waiting = calls as f64 - f64::from(rate.burst);
    Duration::from_secs_f64(waiting.max(0.0) / rate.per_second)
}

#[derive(Clone, Copy)]
struct MadeCall {
    at: Instant,
    class: ActionClass,
    accepted: bool,
}

struct State {
    buckets: Buckets,
    answers: bool,
    /// With the time of the registration.
    targets: BTreeMap<String, Instant>,
    calls: Vec<MadeCall>,
}

/// An account with one target group and a throttle. Clones are the same one.
#[derive(Clone)]
struct Account(Arc<std::sync::Mutex<State>>);

impl Account {
    fn new() -> Self {
        Self(Arc::new(std::sync::Mutex::new(State {
            buckets: Buckets::new(Throttle::default(), Instant::now()),
            answers: true,
            targets: BTreeMap::new(),
            calls: Vec::new(),
        })))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap())
    }

    async fn call<T>(&self, action: Action, work: impl FnOnce(&mut State) -> T) -> Result<T, CallError> {
        sleep(LATENCY).await;
        let class = if action.is_change() { ActionClass::Change } else { ActionClass::Describe };
        self.with(|state| {
            let at = Instant::now();
            let kind = match state.answers {
                false => Some(CallErrorKind::Unanswered),
                true if state.buckets.take(class, at) => None,
                true => Some(CallErrorKind::Throttled),
            };
            state.calls.push(MadeCall { at, class, accepted: kind.is_none() });
            match kind {
                None => Ok(work(state)),
                Some(kind) => Err(CallError { action, kind, detail: format!("{kind:?}") }),
            }
        })
    }

    fn calls_since(&self, begun: Instant) -> Vec<MadeCall> {
        self.with(|state| state.calls.iter().filter(|call| call.at >= begun).copied().collect())
    }

    /// A call of another program, which the SDK repeats up to eight times. Returns whether it was accepted.
    async fn other_calls(&self, action: Action) -> bool {
        let mut longest = seconds(1);
        for _ in 0..9 {
            if self.call(action, |_| ()).await.is_ok() {
                return true;
            }
            sleep(longest.mul_f64(fastrand::f64())).await;
            longest = (longest * 2).min(seconds(20));
        }
        false
    }
}

impl Api for Account {
    async fn find(&self, group: &TargetGroupRef) -> Result<TargetGroup, CallError> {
        let arn = group.name().to_owned();
        let check_interval = Some(CHECK_INTERVAL);
        let group = TargetGroup { arn, target_type: TargetType::Instance, check_interval };
        self.call(Action::DescribeTargetGroups, |_| group).await
    }

    async fn deregistration_delay(&self, _: &str) -> Option<Duration> {
        self.call(Action::DescribeTargetGroupAttributes, |_| DELAY).await.ok()
    }

    async fn health(&self, _: &str, target: &Target) -> Result<TargetHealth, CallError> {
        self.call(Action::DescribeTargetHealth, |state| {
            let (health, reason) = match state.targets.get(&target.id) {
                None => (TargetHealthState::Unused, Some("Target.NotRegistered".to_owned())),
                Some(since) if since.elapsed() < CHECKED => (TargetHealthState::Initial, None),
                Some(_) => (TargetHealthState::Healthy, None),
            };
            TargetHealth { reason, ..TargetHealth::bare(health) }
        })
        .await
    }

    async fn register(&self, _: &str, target: &Target) -> Result<(), CallError> {
        let work = |state: &mut State| {
            let new = state.targets.insert(target.id.clone(), Instant::now()).is_none();
            assert!(new, "{} is registered again", target.id);
        };
        self.call(Action::RegisterTargets, work).await
    }

    async fn deregister(&self, _: &str, target: &Target) -> Result<(), CallError> {
        self.call(Action::DeregisterTargets, |state| _ = state.targets.remove(&target.id)).await
    }

    async fn forget_credentials(&self) {}

    async fn probe_own_health(&self) -> Result<(), String> {
        Ok(())
    }
}

/// Agents that start in the same second.
struct Fleet {
    account: Account,
    agents: Arc<Vec<Setup<Account>>>,
}

/// What a fleet did from one moment to another.
struct Phase {
    took: Duration,
    throttled: usize,
    /// How many calls of others were given up, and how many there were.
    others: (usize, usize),
}

impl Fleet {
    fn start(size: usize, answers: bool) -> Self {
        let account = Account::new();
        account.with(|state| state.answers = answers);
        let settings = settings();
        let start = |number| {
            let setup = Setup::unknown(&account, settings.clone(), None);
            setup.instance.send_replace(Some(instance(&format!("i-{number}"), "a")));
            setup.notices.send_replace(Some(notices()));
            setup
        };
        let agents = Arc::new((0..size).map(start).collect::<Vec<_>>());
        let (balancer, checked) = (account.clone(), agents.clone());
        tokio::spawn(async move {
            loop {
                sleep(CHECK_INTERVAL).await;
                for (number, agent) in checked.iter().enumerate() {
                    if balancer.with(|state| state.targets.contains_key(&format!("i-{number}"))) {
                        agent.traffic.threads()[0].probes.increment();
                    }
                }
            }
        });
        Self { account, agents }
    }

    fn are_registered(&self) -> bool {
        self.account.with(|state| state.targets.len()) == self.agents.len()
    }

    /// As far as the agents know.
    fn are_healthy(&self) -> bool {
        self.agents.iter().all(|agent| {
            agent.registration.borrow().target_groups.iter().any(|group| group.state == "healthy")
        })
    }

    fn are_out(&self) -> bool {
        self.account.with(|state| state.targets.is_empty())
    }

    /// Waits until it is so, while others use the account too, and writes the calls down for the chart.
    async fn until(&self, name: &str, limit: Duration, is_so: impl Fn(&Self) -> bool) -> Phase {
        let begun = Instant::now();
        let mut others = Vec::new();
        while !is_so(self) {
            assert!(begun.elapsed() < limit, "{name}: not within {limit:?}");
            if begun.elapsed() >= OTHERS * u32::try_from(others.len() / 2).unwrap() {
                for action in [Action::DescribeTargetHealth, Action::RegisterTargets] {
                    let account = self.account.clone();
                    others.push(tokio::spawn(async move { account.other_calls(action).await }));
                }
            }
            // The clock is paused: this is the grain in which it moves.
            sleep(seconds(1) / 2).await;
        }
        let took = begun.elapsed();
        let calls = self.account.calls_since(begun);
        let throttled = calls.iter().filter(|call| !call.accepted).count();
        let (made, mut given_up) = (others.len(), 0);
        for other in others {
            given_up += usize::from(!other.await.unwrap());
        }
        println!(
            "{name}: {:.0} s, {throttled} of {} calls throttled; of {made} calls of others {given_up} given up",
            took.as_secs_f64(),
            calls.len(),
        );
        Phase { took, throttled, others: (given_up, made) }
    }
}

/// The row of docs/operations.md about `case`: the least seconds, the seconds taken, and the throttled calls.
fn published(case: &str) -> [f64; 3] {
    const PAGE: &str = include_str!("../../../../docs/operations.md");
    let row = PAGE.lines().find_map(|line| line.strip_prefix(&format!("| {case} | "))).unwrap();
    let figures: Vec<f64> = row
        .split(" | ")
        .map(|cell| cell.chars().filter(char::is_ascii_digit).collect::<String>().parse().unwrap())
        .collect();
    figures[..3].try_into().unwrap()
}

/// Writes the calls of each second for the chart, if a folder is named.
fn draw(case: &str, account: &Account, begun: Instant) {
    let Some(folder) = std::env::var_os("THOUSAND_FIGURES") else { return };
    let mut lines = String::new();
    for MadeCall { at, class, accepted } in account.calls_since(begun) {
        lines += &format!("{} {class:?} {accepted}\n", (at - begun).as_secs());
    }
    std::fs::write(std::path::Path::new(&folder).join(case), lines).unwrap();
}

/// Holds what was measured to the bar, and to what is published.
fn check(case: &str, least: Duration, phase: &Phase) {
    assert!(phase.took <= least.mul_f64(FACTOR), "{case}: {:?}, at least {least:?}", phase.took);
    let [published_least, took, throttled] = published(case);
    assert!((least.as_secs_f64() - published_least).abs() < 1.0, "{case}: {least:?}");
    let ratio = phase.took.as_secs_f64() / took;
    assert!((0.9..1.1).contains(&ratio), "{case}: {:?}, published {took} s", phase.took);
    // After an outage there are few, so that they differ more from run to run.
    let ratio = phase.throttled as f64 / throttled;
    assert!((0.5..1.5).contains(&ratio), "{case}: {} throttled, published {throttled}", phase.throttled);
    let (given_up, made) = phase.others;
    assert!(given_up * 5 <= made, "{case}: others gave {given_up} of {made} calls up");
}

/// For each agent: find the group, look whether the instance is registered already, register.
fn least_for_registering() -> Duration {
    let Throttle { describe, change } = Throttle::default();
    least(describe, 2 * AGENTS).max(least(change, AGENTS))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_that_start_together_and_are_stopped_together() {
    let fleet = Fleet::start(AGENTS, true);
    let begun = Instant::now();
    let phase = fleet.until("start", LIMIT, Fleet::are_registered).await;
    check("start together", least_for_registering(), &phase);
    fleet.until("healthy", LIMIT, Fleet::are_healthy).await;
    draw("start", &fleet.account, begun);

    let budget = Throttle::default().describe.per_second * IDLE;
    for _ in 0..3 {
        let (begun, window) = (Instant::now(), seconds(600));
        sleep(window).await;
        let calls = fleet.account.calls_since(begun);
        assert!(calls.iter().all(|call| call.class == ActionClass::Describe && call.accepted));
        assert!((calls.len() as f64) < budget * window.as_secs_f64(), "{} calls in ten minutes", calls.len());
    }

    let begun = Instant::now();
    for agent in fleet.agents.iter() {
        agent.stop.send_replace(Some("SIGTERM"));
    }
    let phase = fleet.until("drain", LIMIT, Fleet::are_out).await;
    check("drain together", least(Throttle::default().change, AGENTS), &phase);
    // Not one reached its deadline: it would have ended while its target was still registered.
    let ended = |fleet: &Fleet| fleet.agents.iter().all(|agent| agent.task.is_finished());
    fleet.until("end", QUIET + seconds(2), ended).await;
    assert!(begun.elapsed() <= DELAY, "{:?}", begun.elapsed());
    draw("drain", &fleet.account, begun);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_after_an_hour_without_answers() {
    let fleet = Fleet::start(AGENTS, false);
    sleep(seconds(3600)).await;
    fleet.account.with(|state| state.answers = true);
    let begun = Instant::now();
    let phase = fleet.until("outage", LIMIT, Fleet::are_registered).await;
    // The longest pause is part of it: the last agents learn of the answers after 300 s.
    check("after an hour without answers", least_for_registering(), &phase);
    fleet.until("healthy", LIMIT, Fleet::are_healthy).await;
    draw("outage", &fleet.account, begun);
}

#[tokio::test(start_paused = true)]
async fn a_few_are_in_within_300_ms_and_not_all_at_once() {
    for size in [1, 9] {
        let begun = Instant::now();
        let fleet = Fleet::start(size, true);
        while !fleet.are_registered() {
            sleep(Duration::from_millis(1)).await;
        }
        let limit = Duration::from_millis(300) + 3 * LATENCY + Duration::from_millis(5);
        assert!(begun.elapsed() <= limit, "{:?}", begun.elapsed());
        let calls = fleet.account.calls_since(begun);
        let times: Vec<_> =
            calls.iter().filter(|call| call.class == ActionClass::Change).map(|call| call.at).collect();
        let spread = times[size - 1] - times[0];
        assert!(size == 1 || spread > Duration::from_millis(50), "nine within {spread:?}");
    }
}

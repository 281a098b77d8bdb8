//! A member with a scripted account, under a clock that jumps from wait to wait.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use instance_contract::TargetHealthState;

use super::failures::RETRY_DRAINING;
use super::*;
use crate::aws::Action::{
    DeregisterTargets, DescribeTargetGroupAttributes, DescribeTargetGroups, DescribeTargetHealth,
    RegisterTargets,
};
use crate::identity::InstanceIdentity;
use crate::notices::Notices;
use crate::registrar::fake::{Call, FakeApi, Fault, Log};
use instance_server::traffic::TrafficSnapshot;
use tokio::time::sleep;

const GROUP: &str = "cluster1";
/// The port that is registered is not the one that any default would be.
const TARGET: &str = "i-1:8081";
/// Longer than anything but the longest pause between two tries.
const LONG: Duration = Duration::from_secs(60);
const RECONCILE: Duration = Duration::from_secs(300);
const FOR_EVER: u32 = u32::MAX;

/// A member, and what it is handed.
struct Setup {
    api: FakeApi,
    member: MemberHandle,
    instance: watch::Sender<Option<Instance>>,
    notices: watch::Sender<Option<Notices>>,
    questions: watch::Sender<()>,
    traffic: Arc<Traffic>,
}

fn known_instance() -> Instance {
    let identity =
        InstanceIdentity { id: Some("i-1".to_owned()), from_imds: true, ..InstanceIdentity::default() };
    Instance { identity, ..Instance::default() }
}

fn target() -> Target {
    Target { id: "i-1".to_owned(), port: 8081 }
}

impl Setup {
    fn new(api: FakeApi, wish: Wish) -> Self {
        let (instance, seen) = watch::channel(Some(known_instance()));
        let (notices, told) = watch::channel(Some(Notices { read: true, ..Notices::default() }));
        let (questions, asked) = watch::channel(());
        let shared = MemberContext {
            api: api.clone(),
            instance: seen,
            notices: told,
            questions: asked,
            register_port: 8081,
            named_in: "the tag instance-agent:target-group",
            reconcile_interval: RECONCILE,
        };
        let traffic = Arc::new(Traffic::new(1, TrafficSnapshot::default()));
        let group = TargetGroupRef::Name(GROUP.to_owned());
        let member =
            MemberHandle::start(group, Arc::new(shared), traffic.clone(), wish, Arc::default(), None);
        Self { api, member, instance, notices, questions, traffic }
    }

    /// One that is registered, and healthy.
    async fn healthy() -> Self {
        let setup = Self::new(FakeApi::new(&[GROUP]), Wish::In);
        setup.until_state("initial", LONG).await;
        setup.api.set_health(GROUP, TargetHealthState::Healthy);
        setup.until_state("healthy", LONG).await;
        setup
    }

    fn state(&self) -> String {
        self.member.status.borrow().membership.name()
    }

    async fn until_state(&self, state: &str, limit: Duration) {
        self.until(limit, state, |setup| setup.state() == state).await;
    }

    async fn until(&self, limit: Duration, what: &str, is_so: impl Fn(&Self) -> bool) {
        let end = Instant::now() + limit;
        while !is_so(self) {
            let problem = self.member.status.borrow().problem.clone();
            assert!(Instant::now() < end, "not {what} within {limit:?}: {} {problem:?}", self.state());
            // The clock is paused: this is the grain in which it moves.
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn until_gone(&self, limit: Duration) {
        self.until(limit, "gone", |setup| setup.member.is_gone()).await;
        assert!(self.member.has_tried(), "gone is tried");
    }

    fn problem(&self) -> String {
        self.member.status.borrow().problem.as_ref().map(|problem| problem.what.clone()).unwrap_or_default()
    }
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn gaps(times: &[Instant]) -> Vec<Duration> {
    times.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

#[tokio::test(start_paused = true)]
async fn it_looks_first_and_registers_once_its_own_health_answers_200() {
    let setup = Setup::new(FakeApi::new(&[GROUP]), Wish::In);
    setup.api.set_own_health(false);
    sleep(seconds(20)).await;
    assert_eq!(setup.state(), "unregistered");
    assert!(setup.problem().contains("own health path"), "{}", setup.problem());
    assert_eq!(setup.api.targets(GROUP), [""; 0], "not before its own health answers");
    setup.api.set_own_health(true);
    setup.until_state("initial", seconds(3)).await;
    assert_eq!(setup.problem(), "");
    assert_eq!(setup.api.targets(GROUP), [TARGET]);
    let mut calls: Vec<Call> = setup.api.take_calls().into_iter().map(|(_, call)| call).collect();
    calls.dedup();
    let kinds: Vec<_> =
        calls.iter().map(|call| if let Call::Aws(action, _) = call { Some(*action) } else { None }).collect();
    let looks = [Some(DescribeTargetGroups), Some(DescribeTargetHealth)];
    let joins = [None, Some(RegisterTargets), Some(DescribeTargetGroupAttributes)];
    assert_eq!(kinds, [&looks[..], &joins].concat());
}

#[tokio::test(start_paused = true)]
async fn it_asks_often_until_it_is_healthy_rarely_after_that_and_often_again_when_it_is_not() {
    let setup = Setup::new(FakeApi::new(&[GROUP]), Wish::In);
    setup.until_state("initial", LONG).await;
    setup.api.take_calls();
    sleep(seconds(1200)).await;
    let pauses = gaps(&setup.api.times_of(DescribeTargetHealth));
    assert!(pauses[0] <= seconds(2) && pauses[1] <= seconds(4), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause <= RECONCILE + seconds(1)), "{pauses:?}");
    assert!(pauses.len() < 20, "slower and slower: {pauses:?}");

    setup.api.set_health(GROUP, TargetHealthState::Healthy);
    setup.until_state("healthy", RECONCILE + seconds(1)).await;
    setup.api.take_calls();
    sleep(seconds(3600)).await;
    let rarely = setup.api.count(DescribeTargetHealth);
    assert!((10..=14).contains(&rarely), "{rarely} in an hour, one in about 300 s is right");

    setup.api.set_health(GROUP, TargetHealthState::Unhealthy);
    setup.until_state("unhealthy", RECONCILE * 2).await;
    setup.api.take_calls();
    sleep(seconds(8)).await;
    assert!(setup.api.count(DescribeTargetHealth) >= 2, "often again");
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_took_effect_without_an_answer_is_not_repeated() {
    let log = Log::capture();
    let api = FakeApi::new(&[GROUP]);
    api.fault(RegisterTargets, Fault::LosesAnswer, 1);
    let setup = Setup::new(api, Wish::In);
    setup.until_state("unknown", LONG).await;
    setup.until_state("initial", LONG).await;
    assert_eq!(setup.api.targets(GROUP), [TARGET]);
    assert_eq!(setup.api.count(RegisterTargets), 1, "it looked, and was there");
    assert_eq!(log.lines("a call got no answer and may have taken effect").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_registration_that_was_lost_is_repeated_after_a_look() {
    let api = FakeApi::new(&[GROUP]);
    api.fault(RegisterTargets, Fault::Fails(CallErrorKind::Unanswered), 1);
    let setup = Setup::new(api, Wish::In);
    setup.until_state("initial", LONG).await;
    assert_eq!(setup.api.targets(GROUP), [TARGET], "a lost answer is no yes");
    assert_eq!((setup.api.count(RegisterTargets), setup.api.count(DescribeTargetHealth)), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn throttled_it_comes_back_more_slowly_each_time_up_to_a_bound() {
    let api = FakeApi::new(&[GROUP]);
    api.fault(RegisterTargets, Fault::Fails(CallErrorKind::Throttled), FOR_EVER);
    let setup = Setup::new(api, Wish::In);
    sleep(seconds(3 * 3600)).await;
    let pauses = gaps(&setup.api.times_of(RegisterTargets));
    assert!(pauses.len() >= 3 * 60, "it does not give up: {pauses:?}");
    for (failures, pause) in pauses.iter().enumerate() {
        let step = seconds(2_u64.saturating_pow(u32::try_from(failures).unwrap()).min(60));
        let exact = step / 2..=step + Duration::from_millis(20);
        assert!(exact.contains(pause), "{pause:?} after {failures} failures");
    }
    setup.api.mend();
    setup.until_state("initial", seconds(61)).await;
}

#[tokio::test(start_paused = true)]
async fn held_up_on_its_way_in_it_leaves_the_account_to_the_others_before_it_asks_again() {
    let api = FakeApi::new(&[GROUP]);
    api.fault(DescribeTargetHealth, Fault::Fails(CallErrorKind::Throttled), 5);
    let setup = Setup::new(api, Wish::In);
    let begun = Instant::now();
    setup.until_state("initial", LONG).await;
    let way_in = begun.elapsed();
    assert!(way_in > seconds(10), "{way_in:?}");
    setup.api.take_calls();
    sleep(way_in).await;
    assert_eq!(setup.api.take_calls(), [], "its delay and its health can wait");
    assert_eq!(setup.member.status.borrow().deregistration_delay, None);
    setup.until(8 * way_in, "asked", |setup| setup.api.count(DescribeTargetHealth) == 1).await;
    assert_eq!(setup.member.status.borrow().deregistration_delay, Some(seconds(30)));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_throttled_does_not_slow_the_next_kind_down() {
    let api = FakeApi::new(&[GROUP]);
    api.fault(DescribeTargetGroups, Fault::Fails(CallErrorKind::Throttled), 6);
    api.fault(RegisterTargets, Fault::Fails(CallErrorKind::Throttled), 1);
    let setup = Setup::new(api, Wish::In);
    setup.until_state("initial", seconds(70)).await;
    let pauses = gaps(&setup.api.times_of(RegisterTargets));
    assert!(pauses.len() == 1 && pauses[0] <= seconds(1) + Duration::from_millis(20), "{pauses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_uses_its_time_and_slows_down_after_it() {
    let setup = Setup::healthy().await;
    setup.api.fault(DeregisterTargets, Fault::Fails(CallErrorKind::Throttled), FOR_EVER);
    setup.member.wish(Wish::Out);
    sleep(seconds(290)).await;
    let pauses = gaps(&setup.api.times_of(DeregisterTargets));
    assert!(pauses.len() >= 19 && pauses.iter().all(|pause| *pause <= seconds(16)), "{pauses:?}");
    assert!(setup.member.has_tried() && !setup.member.is_gone());
    sleep(seconds(3600)).await;
    setup.api.take_calls();
    sleep(seconds(3600)).await;
    assert!(setup.api.count(DeregisterTargets) <= 120, "slower after that");

    // An urge hurries what waits.
    setup.api.take_calls();
    setup.api.mend();
    setup.member.urge_out();
    assert!(!setup.member.has_tried(), "not since this urge");
    setup.until_gone(seconds(1)).await;
    assert_eq!(setup.api.targets(GROUP), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_denial_is_said_once_and_counted_and_its_credentials_are_forgotten() {
    for kind in [CallErrorKind::AccessDenied, CallErrorKind::Credentials, CallErrorKind::Throttled] {
        let log = Log::capture();
        let api = FakeApi::new(&[GROUP]);
        api.fault(RegisterTargets, Fault::Fails(kind), 5);
        let setup = Setup::new(api, Wish::In);
        setup.until_state("initial", seconds(100)).await;
        assert_eq!(log.lines(&format!("{kind:?}; ")).len(), 1, "{:?}", log.lines(""));
        assert_eq!(log.lines("calls succeed again, after 5 failures").len(), 1, "{:?}", log.lines(""));
        assert_eq!(setup.problem(), "");
        let calls = setup.api.take_calls();
        let calls: Vec<_> = calls.iter().map(|(_, call)| call).collect();
        let denied = calls.windows(2).filter(|pair| matches!(pair[0], Call::Aws(RegisterTargets, _)));
        let forgotten = denied.filter(|pair| *pair[1] == Call::ForgetCredentials).count();
        assert_eq!(forgotten, if kind == CallErrorKind::Throttled { 0 } else { 5 }, "{kind:?}: {calls:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_deleted_and_made_again_is_found_and_joined() {
    let setup = Setup::healthy().await;
    let old = setup.member.status.borrow().arn.clone();
    setup.api.delete(GROUP);
    setup.until_state("unresolved", RECONCILE * 2).await;
    sleep(LONG).await;
    assert_eq!(setup.problem(), "elasticloadbalancing:DescribeTargetGroups: GroupNotFound");
    setup.api.make(GROUP);
    setup.until_state("initial", RECONCILE).await;
    assert_eq!(setup.api.targets(GROUP), [TARGET]);
    assert_ne!(setup.member.status.borrow().arn, old, "it is another one");
}

#[tokio::test(start_paused = true)]
async fn where_nothing_answers_it_asks_slowly_and_a_drain_does_not_wait_for_it() {
    let log = Log::capture();
    let api = FakeApi::new(&[GROUP]);
    for action in [DescribeTargetGroups, DescribeTargetHealth, RegisterTargets, DeregisterTargets] {
        api.fault(action, Fault::Fails(CallErrorKind::Unanswered), FOR_EVER);
    }
    let setup = Setup::new(api, Wish::In);
    sleep(seconds(3600)).await;
    assert_eq!(setup.state(), "unresolved");
    assert!(setup.api.take_calls().len() < 40, "asked slowly");
    assert_eq!(log.lines("Unanswered").len(), 1, "said once");

    let begun = Instant::now();
    setup.member.wish(Wish::Out);
    setup.until_gone(LOOKUP_PATIENCE + RETRY_DRAINING).await;
    assert!(begun.elapsed() >= LOOKUP_PATIENCE, "it was looked for");

    setup.api.mend();
    setup.member.wish(Wish::In);
    setup.until_state("initial", seconds(1)).await;
}

/// Leaves while in `state`; `calls` is how often it then deregisters.
async fn drained_while(what: &str, state: &str, setup: Setup, calls: usize) {
    // Every member begins as unresolved: this one has made a call by now.
    setup.until(LONG, "begun", |setup| !setup.api.times_of(DescribeTargetGroups).is_empty()).await;
    setup.until_state(state, LONG).await;
    setup.api.take_calls();
    setup.member.wish(Wish::Out);
    setup.until_gone(LOOKUP_PATIENCE + RETRY_DRAINING).await;
    assert_eq!(setup.api.targets(GROUP), [""; 0], "{what}: left, with the port that was registered");
    assert_eq!(setup.api.count(DeregisterTargets), calls, "{what}");
    assert_eq!(setup.api.count(RegisterTargets), 0, "{what}");
    sleep(seconds(3600)).await;
    assert_eq!(setup.api.targets(GROUP), [""; 0], "{what}: it stays out");
    // And it comes back.
    setup.api.mend();
    setup.api.set_own_health(true);
    setup.member.wish(Wish::In);
    setup.until_state("initial", LONG).await;
    assert_eq!(setup.api.targets(GROUP), [TARGET], "{what}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_leaves_from_whatever_step_it_comes_in() {
    let unanswered = Fault::Fails(CallErrorKind::Unanswered);
    let api = || FakeApi::new(&[GROUP]);

    let unresolved = api();
    unresolved.fault(DescribeTargetGroups, unanswered, FOR_EVER);
    drained_while("not found yet", "unresolved", Setup::new(unresolved, Wish::In), 0).await;

    let unknown = api();
    unknown.put(GROUP, target());
    unknown.fault(DescribeTargetHealth, unanswered, FOR_EVER);
    drained_while("no look succeeded", "unknown", Setup::new(unknown, Wish::In), 1).await;

    let absent = api();
    absent.set_own_health(false);
    drained_while("not registered yet", "unregistered", Setup::new(absent, Wish::In), 0).await;

    let lost = api();
    lost.fault(RegisterTargets, Fault::LosesAnswer, 1);
    let setup = Setup::new(lost, Wish::In);
    setup.until(LONG, "sent", |setup| setup.api.count(RegisterTargets) == 1).await;
    setup.api.fault(DescribeTargetHealth, Fault::Fails(CallErrorKind::Throttled), FOR_EVER);
    drained_while("the answer is lost", "unknown", setup, 1).await;

    drained_while("not healthy yet", "initial", Setup::new(api(), Wish::In), 1).await;
    drained_while("healthy", "healthy", Setup::healthy().await, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_came_before_the_task_first_ran_was_never_over() {
    let setup = Setup::new(FakeApi::new(&[GROUP]), Wish::In);
    setup.member.urge_out();
    setup.until_gone(LONG).await;
    assert_eq!(setup.api.count(RegisterTargets), 0);
}

#[tokio::test(start_paused = true)]
async fn a_drain_whose_own_answer_is_lost_looks_before_it_repeats_itself() {
    let setup = Setup::healthy().await;
    setup.api.fault(DeregisterTargets, Fault::LosesAnswer, 1);
    setup.member.wish(Wish::Out);
    setup.until_gone(LONG).await;
    assert_eq!(setup.api.count(DeregisterTargets), 1);
    assert!(setup.member.status.borrow().deregistered.is_some());

    let setup = Setup::healthy().await;
    setup.api.fault(DeregisterTargets, Fault::Fails(CallErrorKind::Unanswered), 1);
    setup.member.wish(Wish::Out);
    setup.until_gone(LONG).await;
    assert_eq!(setup.api.targets(GROUP), [""; 0], "a lost answer is no yes");
    assert_eq!(setup.api.count(DeregisterTargets), 2);
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_a_group_that_does_not_exist_ends_at_once() {
    let setup = Setup::new(FakeApi::new(&[]), Wish::In);
    setup.until(LONG, "tried", |setup| setup.member.has_tried()).await;
    setup.member.wish(Wish::Out);
    setup.until_gone(seconds(1)).await;
}

#[tokio::test(start_paused = true)]
async fn after_a_mistake_it_begins_anew_also_in_a_drain() {
    let api = FakeApi::new(&[GROUP]);
    api.fault(RegisterTargets, Fault::Panics, 1);
    let setup = Setup::new(api, Wish::In);
    setup.until(LONG, "broken", |setup| setup.problem().contains("a test asked for it")).await;
    assert_eq!(setup.state(), "unresolved");
    setup.until_state("initial", LONG).await;
    assert_eq!((setup.problem(), setup.api.count(DescribeTargetGroups)), (String::new(), 2));

    setup.api.fault(DeregisterTargets, Fault::Panics, 2);
    setup.member.wish(Wish::Out);
    setup.until_gone(LONG).await;
    assert_eq!(setup.api.targets(GROUP), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn it_registers_only_when_it_knows_who_it_is_and_that_no_notice_keeps_it_out() {
    let setup = Setup::new(FakeApi::new(&[GROUP]), Wish::In);
    setup.instance.send_replace(None);
    setup.notices.send_replace(Some(Notices::default()));
    sleep(seconds(3600)).await;
    assert_eq!(setup.api.take_calls(), [], "nobody to register");
    setup.instance.send_replace(Some(known_instance()));
    setup.until_state("unregistered", seconds(1)).await;
    sleep(LONG).await;
    assert_eq!(setup.api.count(RegisterTargets), 0);
    assert!(setup.problem().contains("notice"), "{}", setup.problem());
    setup.notices.send_replace(Some(Notices { read: true, ..Notices::default() }));
    setup.until_state("initial", seconds(3)).await;
}

#[tokio::test(start_paused = true)]
async fn deregistered_by_hand_it_comes_back_and_a_delay_that_was_not_read_is_read() {
    let api = FakeApi::new(&[GROUP]);
    api.forget_delay(GROUP);
    let setup = Setup::new(api, Wish::In);
    setup.until_state("initial", LONG).await;
    assert_eq!(setup.member.status.borrow().deregistration_delay, None);
    // The same name, with a delay, without targets.
    setup.api.make(GROUP);
    setup.until(RECONCILE * 2, "there again", |setup| setup.api.targets(GROUP) == [TARGET]).await;
    assert_eq!(setup.member.status.borrow().deregistration_delay, Some(seconds(30)));
}

impl Setup {
    /// The balancer checks this agent, which answers 404.
    fn refuse_probe(&self) {
        let traffic = &self.traffic.threads()[0];
        traffic.probes.increment();
        traffic.refuse_probe();
    }
}

#[tokio::test(start_paused = true)]
async fn a_health_check_that_this_agent_refuses_is_news_and_the_balancer_is_asked_until_it_says_so_too() {
    let setup = Setup::healthy().await;
    sleep(LONG).await;
    setup.api.take_calls();
    // As a balancer does: twice, 30 s apart, and then the target is unhealthy.
    setup.refuse_probe();
    sleep(seconds(2)).await;
    assert_eq!(setup.api.count(DescribeTargetHealth), 1, "at once");
    sleep(seconds(28)).await;
    setup.refuse_probe();
    setup.api.set_health(GROUP, TargetHealthState::Unhealthy);
    setup.until_state("unhealthy", LONG).await;
    assert!(setup.api.count(DescribeTargetHealth) <= 8, "{}", setup.api.count(DescribeTargetHealth));
}

#[tokio::test(start_paused = true)]
async fn requests_that_look_like_health_checks_cannot_make_it_ask_often() {
    let setup = Setup::healthy().await;
    sleep(LONG).await;
    setup.api.take_calls();
    for _ in 0..3600 * 4 {
        setup.refuse_probe();
        sleep(seconds(1) / 4).await;
    }
    let looks = setup.api.count(DescribeTargetHealth);
    assert!((10..=30).contains(&looks), "{looks} looks in an hour");
}

#[tokio::test(start_paused = true)]
async fn a_question_of_an_operator_is_passed_on_where_what_is_known_is_old_and_delays_no_look() {
    let setup = Setup::healthy().await;
    sleep(seconds(5)).await;
    setup.api.take_calls();
    setup.questions.send_replace(());
    sleep(seconds(1)).await;
    assert_eq!(setup.api.count(DescribeTargetHealth), 0, "it is known");
    sleep(seconds(10)).await;
    setup.questions.send_replace(());
    sleep(seconds(1)).await;
    assert_eq!(setup.api.count(DescribeTargetHealth), 1);
    // Every second, for twenty minutes: once in ten seconds is asked.
    setup.api.take_calls();
    for _ in 0..1200 {
        setup.questions.send_replace(());
        sleep(seconds(1)).await;
    }
    let looks = setup.api.count(DescribeTargetHealth);
    assert!((100..=125).contains(&looks), "{looks} looks in 1200 s");
    // A look that fails for an operator is repeated as any other.
    let is_old = |setup: &Setup| {
        setup.member.status.borrow().as_of.is_some_and(|(_, asked)| asked.elapsed() >= seconds(11))
    };
    setup.until(LONG, "old", is_old).await;
    setup.api.fault(DescribeTargetHealth, Fault::Fails(CallErrorKind::Throttled), 1);
    setup.questions.send_replace(());
    setup.until(seconds(1), "throttled", |setup| setup.problem().contains("Throttled")).await;
    setup.until(seconds(3), "over", |setup| setup.problem().is_empty()).await;

    setup.until(LONG, "old", is_old).await;
    setup.api.set_health(GROUP, TargetHealthState::Unhealthy);
    setup.questions.send_replace(());
    setup.until_state("unhealthy", seconds(1)).await;
    setup.api.take_calls();
    sleep(seconds(8)).await;
    assert!(setup.api.count(DescribeTargetHealth) >= 2, "often, as nobody had asked");
}

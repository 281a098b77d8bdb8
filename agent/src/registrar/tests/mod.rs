//! The registrar with a scripted account, under a clock that jumps from wait to wait.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::collections::BTreeMap;

use aws_smithy_runtime_api::client::http::http_client_fn;
use instance_contract::TargetHealthState;
use instance_contract::tags::TARGET_GROUP;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::aws::{Action, CallErrorKind};
use crate::config::Layers;
use crate::identity::InstanceIdentity;
use crate::notices::Notices;
use crate::status::Registration;
use fake::{FakeApi, Fault, Log};
use instance_server::traffic::{Traffic, TrafficSnapshot};

mod operator;
mod thousand;

const TARGET: &str = "i-1:8081";
const NOBODY: [&str; 0] = [];
const FOR_EVER: u32 = u32::MAX;
const LONG: Duration = Duration::from_secs(60);
const QUIET: Duration = Duration::from_secs(20);

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

fn name(group: &str) -> TargetGroupRef {
    TargetGroupRef::Name(group.to_owned())
}

fn instance(id: &str, groups: &str) -> Instance {
    let identity =
        InstanceIdentity { id: Some(id.to_owned()), from_imds: true, ..InstanceIdentity::default() };
    Instance { identity, tags: BTreeMap::from([(TARGET_GROUP.to_owned(), groups.to_owned())]) }
}

fn notices() -> Notices {
    Notices { read: true, ..Notices::default() }
}

/// A running registrar, and the other ends of its channels.
struct Setup<A = FakeApi> {
    api: A,
    instance: watch::Sender<Option<Instance>>,
    notices: watch::Sender<Option<Notices>>,
    requests: mpsc::Sender<OperatorRequest>,
    stop: watch::Sender<Option<&'static str>>,
    _questions: watch::Sender<()>,
    traffic: Arc<Traffic>,
    answers: watch::Receiver<Arc<Answers>>,
    registration: watch::Receiver<Registration>,
    role: watch::Receiver<(Role, Vec<TargetGroupRef>)>,
    task: JoinHandle<()>,
}

impl<A: Api + Clone> Setup<A> {
    /// One that does not know yet who it is.
    fn unknown(api: &A, settings: Settings, resumed: Option<ResumedState>) -> Self {
        Self::run_by(|registrar| tokio::spawn(registrar.run()), api, settings, resumed)
    }

    fn run_by(
        run: impl FnOnce(Registrar<A>) -> JoinHandle<()>,
        api: &A,
        settings: Settings,
        resumed: Option<ResumedState>,
    ) -> Self {
        let (instance, seen_instance) = watch::channel(None);
        let (notices, seen_notices) = watch::channel(None);
        let (requests, requested) = mpsc::channel(1);
        let (stop, stopped) = watch::channel(None);
        let (questions, asked) = watch::channel(());
        let traffic = Arc::new(Traffic::new(1, TrafficSnapshot::default()));
        let (publish_answers, answers) = watch::channel(Arc::new(Answers {
            root: settings.root.unwrap_or_default(),
            instance: None,
            draining: None,
        }));
        let (publish_registration, registration) = watch::channel(Registration::default());
        let (publish_role, role) = watch::channel((Role::default(), Vec::new()));
        let inputs = Inputs {
            instance: seen_instance,
            notices: seen_notices,
            requests: requested,
            stop: stopped,
            traffic: traffic.clone(),
            questions: asked,
            http_client: http_client_fn(|_, _| panic!("the scripted account needs no HTTP")),
        };
        let outputs =
            Outputs { answers: publish_answers, registration: publish_registration, role: publish_role };
        let listening = SocketAddr::from(([127, 0, 0, 1], 8081));
        let registrar = Registrar::with_api(api.clone(), settings, listening, inputs, outputs, resumed);
        let task = run(registrar);
        Self {
            api: api.clone(),
            instance,
            notices,
            requests,
            stop,
            _questions: questions,
            traffic,
            answers,
            registration,
            role,
            task,
        }
    }
}

impl Setup {
    fn with(api: &FakeApi, settings: Settings, resumed: Option<ResumedState>, groups: &str) -> Self {
        let setup = Self::unknown(api, settings, resumed);
        setup.instance.send_replace(Some(instance("i-1", groups)));
        setup.notices.send_replace(Some(notices()));
        setup
    }

    /// In the group `a`.
    async fn registered(api: &FakeApi, settings: Settings) -> Self {
        let setup = Self::with(api, settings, None, "a");
        setup.until(LONG, "registered", |setup| setup.api.targets("a") == [TARGET]).await;
        setup
    }

    fn tag(&self, groups: &str) {
        self.instance.send_replace(Some(instance("i-1", groups)));
    }

    fn phase(&self) -> Phase {
        self.registration.borrow().phase
    }

    async fn until(&self, limit: Duration, what: &str, is_so: impl Fn(&Self) -> bool) -> Duration {
        let begun = Instant::now();
        while !is_so(self) {
            assert!(begun.elapsed() < limit, "not {what} within {limit:?}: {:?}", self.registration.borrow());
            // The clock is paused: this is the grain in which it moves.
            sleep(Duration::from_millis(10)).await;
        }
        begun.elapsed()
    }

    async fn until_phase(&self, phase: Phase, limit: Duration) -> Duration {
        self.until(limit, &phase.to_string(), |setup| setup.phase() == phase).await
    }

    async fn ask(
        &self,
        request: impl FnOnce(oneshot::Sender<Result<String, String>>) -> OperatorRequest,
    ) -> Result<String, String> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(request(reply)).await.unwrap();
        answer.await.unwrap()
    }

    fn group_names(&self) -> Vec<String> {
        self.registration.borrow().target_groups.iter().map(|group| group.name.clone()).collect()
    }
}

impl<A> Drop for Setup<A> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Settings whose state is kept in `folder`.
fn settings_in(folder: &tempfile::TempDir) -> Settings {
    Settings {
        state_dir: folder.path().to_owned(),
        drain_quiet: QUIET,
        drain_timeout: None,
        ..Layers::default().settings().unwrap()
    }
}

fn settings() -> Settings {
    settings_in(&tempfile::tempdir().unwrap())
}

#[tokio::test]
async fn before_the_instance_is_known_the_settings_decide_the_answers() {
    let settings = Settings { root: Some(instance_contract::Root::Seed), ..settings() };
    let publish = |registrar: Registrar<FakeApi>| {
        registrar.publish();
        tokio::spawn(registrar.run())
    };
    let setup = Setup::run_by(publish, &FakeApi::new(&["a"]), settings, None);
    assert_eq!(setup.answers.borrow().root, instance_contract::Root::Seed);
}

#[tokio::test(start_paused = true)]
async fn it_starts_when_identity_and_notices_are_known() {
    let api = FakeApi::new(&["a"]);
    let setup = Setup::unknown(&api, settings(), None);
    sleep(LONG).await;
    setup.instance.send_replace(Some(instance("i-1", "a")));
    sleep(LONG).await;
    assert_eq!((setup.phase(), api.take_calls().len()), (Phase::Starting, 0));
    setup.notices.send_replace(Some(notices()));
    setup.until(LONG, "registered", |setup| setup.api.targets("a") == [TARGET]).await;
    assert_eq!((setup.phase(), setup.answers.borrow().draining.clone()), (Phase::Serving, None));
}

#[tokio::test(start_paused = true)]
async fn a_notice_before_the_start_keeps_it_out_until_it_is_over() {
    let api = FakeApi::new(&["a"]);
    let setup = Setup::unknown(&api, settings(), None);
    setup.instance.send_replace(Some(instance("i-1", "a")));
    let spot = Notices { spot: Some("terminate at noon".to_owned()), ..notices() };
    setup.notices.send_replace(Some(spot));
    setup.until_phase(Phase::Drained, LONG).await;
    sleep(seconds(3600)).await;
    assert_eq!(api.count(Action::RegisterTargets), 0);
    let answer = setup.answers.borrow().draining.clone();
    assert_eq!(answer.as_deref(), Some("drained: spot interruption notice: terminate at noon"));
    setup.notices.send_replace(Some(notices()));
    setup.until(LONG, "registered", |setup| setup.api.targets("a") == [TARGET]).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_is_remembered_over_restarts_until_it_is_resumed() {
    let (api, folder) = (FakeApi::new(&["a"]), tempfile::tempdir().unwrap());
    let setup = Setup::registered(&api, settings_in(&folder)).await;
    setup.ask(OperatorRequest::Drain).await.unwrap();
    setup.until_phase(Phase::Drained, LONG).await;
    assert_eq!(api.targets("a"), NOBODY);
    drop(setup);

    let setup = Setup::with(&api, settings_in(&folder), None, "a");
    setup.until_phase(Phase::Drained, LONG).await;
    sleep(seconds(3600)).await;
    assert_eq!(api.targets("a"), NOBODY, "not after a restart");
    assert!(setup.ask(OperatorRequest::Resume).await.unwrap().starts_with("resumed"));
    setup.until(LONG, "registered", |setup| setup.api.targets("a") == [TARGET]).await;
    drop(setup);

    let setup = Setup::with(&api, settings_in(&folder), None, "a");
    setup.until_phase(Phase::Serving, LONG).await;
    sleep(LONG).await;
    assert_eq!((setup.phase(), api.targets("a")), (Phase::Serving, vec![TARGET.to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_cannot_be_remembered_is_refused() {
    let nowhere = Settings { state_dir: "/nonexistent".into(), ..settings() };
    let setup = Setup::registered(&FakeApi::new(&["a"]), nowhere).await;
    assert!(setup.ask(OperatorRequest::Drain).await.unwrap_err().starts_with("not drained"));
    sleep(LONG).await;
    assert_eq!((setup.phase(), setup.api.targets("a")), (Phase::Serving, vec![TARGET.to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_drain_that_is_resumed_in_the_middle_is_called_off() {
    let (log, folder) = (Log::capture(), tempfile::tempdir().unwrap());
    let setup = Setup::registered(&FakeApi::new(&["a"]), settings_in(&folder)).await;
    setup.ask(OperatorRequest::Drain).await.unwrap();
    setup.until(LONG, "left", |setup| setup.api.targets("a") == NOBODY).await;
    assert_eq!(setup.phase(), Phase::Draining);
    setup.ask(OperatorRequest::Resume).await.unwrap();
    setup.until(LONG, "registered", |setup| setup.api.targets("a") == [TARGET]).await;
    assert_eq!(setup.phase(), Phase::Serving);
    assert_eq!(log.lines("the drain (requested by an operator) is cancelled").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_silence_and_for_what_is_in_flight() {
    let setup = Setup::registered(&FakeApi::new(&["a"]), settings()).await;
    let traffic = setup.traffic.threads()[0].clone();
    setup.stop.send_replace(Some("SIGTERM"));
    // Less than the delay of 30 s and its margin, which would end the drain.
    sleep(seconds(2)).await;
    assert_eq!(setup.api.targets("a"), NOBODY);
    traffic.root.increment();
    let quiet = setup.until(LONG, "over", |setup| setup.task.is_finished()).await;
    assert!((QUIET..QUIET + seconds(1)).contains(&quiet), "{quiet:?} after the last request");

    let patient = Settings { drain_timeout: Some(seconds(600)), ..settings() };
    let setup = Setup::registered(&FakeApi::new(&["a"]), patient).await;
    let traffic = setup.traffic.threads()[0].clone();
    traffic.started.increment();
    setup.stop.send_replace(Some("SIGTERM"));
    sleep(seconds(300)).await;
    assert_eq!(setup.phase(), Phase::Draining, "a request is in flight");
    assert!(setup.registration.borrow().stopping);
    traffic.finished.increment();
    let quiet = setup.until(LONG, "over", |setup| setup.task.is_finished()).await;
    assert!((QUIET - DRAIN_TICK..QUIET + seconds(1)).contains(&quiet), "{quiet:?} after its end");
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_at_its_deadline_whatever_still_stands() {
    let log = Log::capture();
    for (timeout, within) in
        [(Some(seconds(90)), seconds(90)), (None, seconds(30)), (Some(seconds(0)), seconds(1))]
    {
        let limits = Settings { drain_timeout: timeout, ..settings() };
        let setup = Setup::registered(&FakeApi::new(&["a"]), limits).await;
        setup.api.fault(Action::DeregisterTargets, Fault::Fails(CallErrorKind::Throttled), FOR_EVER);
        setup.stop.send_replace(Some("SIGTERM"));
        let took = setup.until(LONG * 2, "over", |setup| setup.task.is_finished()).await;
        let exact = timeout.unwrap_or(within)..=within + seconds(1);
        assert!(exact.contains(&took), "{took:?} with {timeout:?}");
        assert!(setup.api.count(Action::DeregisterTargets) >= 1, "it was tried");
    }
    let said = log.lines("drain timeout reached with 0 requests in flight, may still be registered");
    assert_eq!(said.len(), 3, "{said:?}");
}

#[tokio::test(start_paused = true)]
async fn registered_nowhere_it_stops_at_once() {
    let setup = Setup::with(&FakeApi::new(&[]), settings(), None, "");
    setup.until_phase(Phase::Serving, LONG).await;
    setup.stop.send_replace(Some("SIGTERM"));
    setup.until(seconds(1), "over", |setup| setup.task.is_finished()).await;
}

#[tokio::test(start_paused = true)]
async fn stopped_while_drained_it_tries_again_what_failed() {
    let hasty = Settings { drain_timeout: Some(seconds(5)), ..settings() };
    let setup = Setup::registered(&FakeApi::new(&["a"]), hasty).await;
    setup.api.fault(Action::DeregisterTargets, Fault::Fails(CallErrorKind::Throttled), FOR_EVER);
    setup.notices.send_replace(Some(Notices { auto_scaling: Some("Standby".to_owned()), ..notices() }));
    setup.until_phase(Phase::Drained, LONG).await;
    assert_eq!(setup.api.targets("a"), [TARGET]);
    setup.api.mend();
    setup.stop.send_replace(Some("SIGTERM"));
    setup.until(LONG, "over", |setup| setup.task.is_finished()).await;
    assert_eq!(setup.api.targets("a"), NOBODY);
}

#[tokio::test(start_paused = true)]
async fn drained_before_a_reload_it_stays_drained_without_another_drain() {
    let (log, folder) = (Log::capture(), tempfile::tempdir().unwrap());
    RememberedDrain::in_folder(folder.path()).remember(Some("i-1")).unwrap();
    let role = Role { target_groups: vec![name("a")], ..Role::default() };
    let resumed = ResumedState { role, drained: true, ..ResumedState::default() };
    let setup = Setup::with(&FakeApi::new(&["a"]), settings_in(&folder), Some(resumed), "a");
    setup.until_phase(Phase::Drained, seconds(1)).await;
    sleep(LONG).await;
    assert_eq!(log.lines("draining: "), NOBODY, "it was drained before");
    setup.ask(OperatorRequest::Resume).await.unwrap();
    setup.until(LONG, "registered", |setup| setup.api.targets("a") == [TARGET]).await;
    assert_eq!(log.lines("registering again: the drain (requested by an operator) is over").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn after_a_reload_it_goes_on_leaving_the_groups_that_it_was_leaving() {
    let api = FakeApi::new(&["a", "b"]);
    for group in ["a", "b"] {
        api.put(group, crate::target_group::Target { id: "i-1".to_owned(), port: 8081 });
    }
    let role = Role { target_groups: vec![name("a")], ..Role::default() };
    let resumed = ResumedState { role, parting: vec![name("b")], ..ResumedState::default() };
    let setup = Setup::with(&api, settings(), Some(resumed), "a");
    setup.until(LONG, "out of b", |setup| setup.api.targets("b") == NOBODY).await;
    setup.until(LONG, "forgotten", |setup| setup.group_names() == ["a"]).await;
    assert_eq!((api.targets("a"), api.count(Action::RegisterTargets)), (vec![TARGET.to_owned()], 0));
    assert_eq!(setup.role.borrow().1, []);
}

#[tokio::test(start_paused = true)]
async fn a_tag_that_changes_in_the_middle_of_a_registration_is_followed() {
    let api = FakeApi::new(&["a", "b"]);
    api.set_own_health(false);
    let setup = Setup::with(&api, settings(), None, "a");
    sleep(LONG).await;
    setup.tag("b");
    sleep(LONG).await;
    api.set_own_health(true);
    setup.until(LONG, "registered", |setup| setup.api.targets("b") == [TARGET]).await;
    sleep(seconds(3600)).await;
    assert_eq!((api.targets("a"), setup.group_names()), (Vec::<String>::new(), vec!["b".to_owned()]));
    assert_eq!(setup.phase(), Phase::Serving);

    // Back before the old one is left: it was never left.
    api.take_calls();
    api.fault(Action::DeregisterTargets, Fault::Fails(CallErrorKind::Throttled), FOR_EVER);
    setup.tag("");
    sleep(seconds(20)).await;
    setup.tag("b");
    api.mend();
    sleep(seconds(3600)).await;
    assert_eq!((api.targets("b"), api.count(Action::RegisterTargets)), (vec![TARGET.to_owned()], 0));
}

#[tokio::test(start_paused = true)]
async fn begun_anew_it_changes_nothing_and_goes_on_leaving_what_it_was_leaving() {
    let api = FakeApi::new(&["a"]);
    let broken = Arc::new(Notify::new());
    let breaks = broken.clone();
    let run = |mut registrar: Registrar<FakeApi>| {
        tokio::spawn(async move {
            let turns = async { while registrar.turn().await.is_continue() {} };
            tokio::select! {
                () = turns => {}
                () = breaks.notified() => {
                    registrar.begin_anew();
                    registrar.run().await;
                }
            }
        })
    };
    let setup = Setup::run_by(run, &api, settings(), None);
    setup.tag("a");
    setup.notices.send_replace(Some(notices()));
    setup.until(LONG, "registered", |setup| setup.api.targets("a") == [TARGET]).await;
    // Left as soon as it has joined the other, which is not there yet.
    setup.tag("b");
    setup.until(LONG, "leaving", |setup| setup.group_names() == ["b", "a"]).await;

    api.take_calls();
    broken.notify_one();
    sleep(LONG).await;
    assert_eq!(setup.group_names(), ["b", "a"]);
    assert_eq!((api.count(Action::RegisterTargets), api.count(Action::DeregisterTargets)), (0, 0));
    api.make("b");
    setup.until(10 * LONG, "moved", |setup| setup.api.targets("b") == [TARGET]).await;
    setup.until(LONG, "gone", |setup| setup.api.targets("a") == NOBODY).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_group_is_left_only_after_the_new_ones_are_joined() {
    let api = FakeApi::new(&["a", "b", "c"]);
    let setup = Setup::registered(&api, settings()).await;
    api.set_health("a", TargetHealthState::Healthy);
    api.fault(Action::RegisterTargets, Fault::Fails(CallErrorKind::Throttled), 3);
    api.take_calls();
    setup.tag("b c");
    setup.until(LONG, "in b", |setup| setup.api.targets("b") == [TARGET]).await;
    setup.until(LONG, "in c", |setup| setup.api.targets("c") == [TARGET]).await;
    setup.until(LONG, "out of a", |setup| setup.api.targets("a") == NOBODY).await;
    let joined = api.times_of(Action::RegisterTargets).into_iter().max().unwrap();
    let left = api.times_of(Action::DeregisterTargets);
    assert_eq!(left.len(), 1);
    assert!(left[0] >= joined && left[0] < joined + seconds(1), "at once after the last was joined");
    setup.until(LONG, "forgotten", |setup| setup.group_names() == ["b", "c"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_name_that_does_not_exist_takes_no_instance_out_of_its_group() {
    let log = Log::capture();
    let api = FakeApi::new(&["a"]);
    let setup = Setup::registered(&api, settings()).await;
    setup.tag("misspelled");
    sleep(seconds(3600)).await;
    assert_eq!(api.targets("a"), [TARGET]);
    assert_eq!(setup.group_names(), ["misspelled", "a"]);
    assert_eq!(log.lines("target group a: no longer named; ").len(), 1, "{:?}", log.lines("group a"));
    // A reload takes over what is not left yet, and does not leave it either.
    let (role, parting) = setup.role.borrow().clone();
    assert_eq!(parting, [name("a")]);
    drop(setup);
    let setup = Setup::with(
        &api,
        settings(),
        Some(ResumedState { role, parting, ..ResumedState::default() }),
        "misspelled",
    );
    sleep(seconds(3600)).await;
    assert_eq!(api.targets("a"), [TARGET]);
    // It is not registered anew, where somebody takes it out.
    api.make("a");
    setup.until(seconds(1200), "forgotten", |setup| setup.group_names() == ["misspelled"]).await;
    assert_eq!(api.targets("a"), NOBODY);
    // As soon as the group is made, all is as the tag says.
    api.make("misspelled");
    setup.until(seconds(600), "joined", |setup| setup.api.targets("misspelled") == [TARGET]).await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_kept_is_left_when_the_tag_is_emptied_and_when_the_instance_drains() {
    let api = FakeApi::new(&["a"]);
    let setup = Setup::registered(&api, settings()).await;
    setup.tag("misspelled");
    sleep(LONG).await;
    setup.tag("");
    setup.until(LONG, "out", |setup| setup.api.targets("a") == NOBODY).await;
    setup.until(LONG, "forgotten", |setup| setup.group_names() == NOBODY).await;

    setup.tag("a");
    setup.until(LONG, "registered", |setup| setup.api.targets("a") == [TARGET]).await;
    setup.tag("misspelled");
    sleep(LONG).await;
    assert_eq!(api.targets("a"), [TARGET]);
    setup.stop.send_replace(Some("SIGTERM"));
    setup.until(LONG, "over", |setup| setup.task.is_finished()).await;
    assert_eq!(api.targets("a"), NOBODY);
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_put_right_brings_the_group_back_as_it_was() {
    let api = FakeApi::new(&["a"]);
    let setup = Setup::registered(&api, settings()).await;
    api.take_calls();
    setup.tag("misspelled");
    sleep(LONG).await;
    setup.tag("a");
    sleep(seconds(3600)).await;
    assert_eq!((api.targets("a"), setup.group_names()), (vec![TARGET.to_owned()], vec!["a".to_owned()]));
    assert_eq!(api.count(Action::RegisterTargets) + api.count(Action::DeregisterTargets), 0);
}

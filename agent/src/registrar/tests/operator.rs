//! What an operator is told: of a drain, of a resume, of this program's own mistakes.

use super::*;

/// What the status says the drain waits for.
fn waits_for(setup: &Setup) -> Option<String> {
    let status = serde_json::to_value(&*setup.registration.borrow()).unwrap();
    status["waiting_for"].as_str().map(str::to_owned)
}

#[tokio::test(start_paused = true)]
async fn never_registered_it_does_not_wait_for_silence_at_a_stop() {
    let api = FakeApi::new(&["a"]);
    api.fault(Action::RegisterTargets, Fault::Fails(CallErrorKind::Unanswered), FOR_EVER);
    let setup = Setup::with(&api, settings(), None, "a");
    let tried = |setup: &Setup| setup.api.count(Action::RegisterTargets) >= 3;
    setup.until(LONG, "refused often", tried).await;
    setup.stop.send_replace(Some("SIGTERM"));
    let took = setup.until(LONG, "over", |setup| setup.task.is_finished()).await;
    assert!(took < seconds(2), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_deregistration_that_is_lost_does_not_shorten_the_silence() {
    let api = FakeApi::new(&["a"]);
    api.fault(Action::RegisterTargets, Fault::LosesAnswer, 1);
    api.fault(Action::DeregisterTargets, Fault::LosesAnswer, 1);
    let setup = Setup::with(&api, settings(), None, "a");
    setup.until(LONG, "sent", |setup| setup.api.count(Action::RegisterTargets) == 1).await;
    // It has no chance to see itself registered.
    api.fault(Action::DescribeTargetHealth, Fault::Fails(CallErrorKind::Throttled), 2);
    setup.stop.send_replace(Some("SIGTERM"));
    let took = setup.until(LONG, "over", |setup| setup.task.is_finished()).await;
    assert_eq!(api.targets("a"), NOBODY);
    assert!(took >= QUIET, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_restarted_agent_that_may_not_look_waits_for_silence_after_it_has_left() {
    let api = FakeApi::new(&["a"]);
    api.put("a", crate::target_group::Target { id: "i-1".to_owned(), port: 8081 });
    api.fault(Action::DescribeTargetHealth, Fault::Fails(CallErrorKind::AccessDenied), FOR_EVER);
    let setup = Setup::with(&api, settings(), None, "a");
    setup.until(LONG, "looked", |setup| setup.api.count(Action::DescribeTargetHealth) >= 1).await;
    setup.stop.send_replace(Some("SIGTERM"));
    let took = setup.until(LONG, "over", |setup| setup.task.is_finished()).await;
    assert_eq!(api.targets("a"), NOBODY);
    assert!(took >= QUIET, "the balancer may still have been sending: {took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_drain_says_what_it_waits_for_and_each_once() {
    let log = Log::capture();
    let setup = Setup::registered(&FakeApi::new(&["a"]), settings()).await;
    let traffic = setup.traffic.threads()[0].clone();
    setup.api.fault(Action::DeregisterTargets, Fault::Fails(CallErrorKind::Throttled), 2);
    setup.notices.send_replace(Some(Notices { auto_scaling: Some("Standby".to_owned()), ..notices() }));
    let leaving = "the deregistration from a";
    setup.until(LONG, leaving, |setup| waits_for(setup).as_deref() == Some(leaving)).await;
    let silence = "20 s in a row without requests";
    setup.until(LONG, silence, |setup| waits_for(setup).as_deref() == Some(silence)).await;
    assert!(setup.registration.borrow().summary("x").contains("waiting for 20 s in a row without requests"));
    // Requests come and go: that is no news.
    for _ in 0..10 {
        traffic.started.increment();
        sleep(seconds(1)).await;
        traffic.finished.increment();
        traffic.root.increment();
        sleep(seconds(1)).await;
    }
    setup.until_phase(Phase::Drained, LONG).await;
    assert_eq!(waits_for(&setup), None);
    for waited in [leaving, silence] {
        assert_eq!(
            log.lines(&format!("draining: waiting for {waited}")).len(),
            1,
            "{:?}",
            log.lines("drain")
        );
    }
    // Long out of every group, it waits for what is in flight.
    sleep(LONG * 2).await;
    traffic.started.increment();
    setup.stop.send_replace(Some("SIGTERM"));
    let in_flight = "the requests in flight";
    setup.until(LONG, in_flight, |setup| waits_for(setup).as_deref() == Some(in_flight)).await;
    traffic.finished.increment();
    setup.until(LONG, "over", |setup| setup.task.is_finished()).await;
}

#[tokio::test(start_paused = true)]
async fn a_resume_says_when_there_was_nothing_to_resume_and_a_drain_when_it_is_drained_already() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::registered(&FakeApi::new(&["a"]), settings_in(&folder)).await;
    let said = setup.ask(OperatorRequest::Resume).await.unwrap();
    assert_eq!(said, "nothing to resume: no drain by an operator is in force");
    let said = setup.ask(OperatorRequest::Drain).await.unwrap();
    let how =
        "draining: deregistering from a, then waiting for 20 s in a row without requests; at most 30 s\n";
    assert!(
        said.starts_with(how) && said.ends_with("`instance-agent drain --wait` waits for the end"),
        "{said}"
    );
    setup.until(LONG, "silence", |setup| waits_for(setup).is_some_and(|wait| wait.contains("without"))).await;
    let said = setup.ask(OperatorRequest::Drain).await.unwrap();
    assert!(
        said.starts_with("already draining: waiting for 20 s in a row without requests; at most "),
        "{said}"
    );
    setup.until_phase(Phase::Drained, LONG).await;
    let said = setup.ask(OperatorRequest::Drain).await.unwrap();
    assert!(said.starts_with("already drained\n"), "{said}");
    assert!(setup.ask(OperatorRequest::Resume).await.unwrap().starts_with("resumed: "));

    setup.notices.send_replace(Some(Notices { auto_scaling: Some("Standby".to_owned()), ..notices() }));
    setup.until_phase(Phase::Drained, LONG * 2).await;
    let said = setup.ask(OperatorRequest::Resume).await.unwrap();
    assert_eq!(
        said,
        "nothing to resume: no drain by an operator is in force; another reason keeps it deregistered: \
         Auto Scaling state Standby"
    );
}

#[tokio::test(start_paused = true)]
async fn a_mistake_about_a_group_is_said_once_however_often_it_is_made() {
    let log = Log::capture();
    let api = FakeApi::new(&["a"]);
    let setup = Setup::registered(&api, settings()).await;
    api.set_health("a", TargetHealthState::Healthy);
    for _ in 0..5 {
        let before = api.count(Action::DescribeTargetGroups);
        api.fault(Action::DescribeTargetHealth, Fault::Panics, 1);
        // It begins anew, and all is well until the next look.
        let anew = |setup: &Setup| setup.api.count(Action::DescribeTargetGroups) > before;
        setup.until(LONG * 30, "begun anew", anew).await;
        let healthy = |setup: &Setup| setup.registration.borrow().target_groups[0].state == "healthy";
        setup.until(LONG * 10, "healthy", healthy).await;
    }
    assert_eq!(log.lines("a test asked for it").len(), 1, "{:?}", log.lines("group a"));
    assert_eq!(log.lines("calls succeed again"), NOBODY);
    assert_eq!(api.targets("a"), [TARGET]);
}

#[tokio::test(start_paused = true)]
async fn a_registrar_that_breaks_again_and_again_says_it_once() {
    let log = Log::capture();
    let setup = Setup::registered(&FakeApi::new(&["a"]), settings()).await;
    for _ in 0..5 {
        setup.requests.send(OperatorRequest::Panic).await.unwrap();
        sleep(LONG * 6).await;
        assert_eq!((setup.phase(), setup.api.targets("a")), (Phase::Serving, vec![TARGET.to_owned()]));
    }
    assert_eq!(log.lines("this is a bug").len(), 1, "{:?}", log.lines("bug"));
}

/// What the next program is told of this one.
fn resumed_from(setup: &Setup) -> ResumedState {
    let (role, parting) = setup.role.borrow().clone();
    let registration = setup.registration.borrow();
    // As the record has it.
    let groups = serde_json::to_string(&registration.target_groups).unwrap();
    ResumedState {
        role,
        parting,
        drained: registration.phase == Phase::Drained,
        since: Some("2026-01-01T00:00:00Z".to_owned()),
        groups: serde_json::from_str(&groups).unwrap(),
    }
}

#[tokio::test(start_paused = true)]
async fn a_reload_begins_nothing_anew() {
    let api = FakeApi::new(&["a", "b"]);
    let setup = Setup::registered(&api, settings()).await;
    api.set_health("a", TargetHealthState::Unhealthy);
    let state = |setup: &Setup| setup.registration.borrow().target_groups[0].state.clone();
    setup.until(LONG * 10, "unhealthy", |setup| state(setup) == "unhealthy").await;
    let resumed = resumed_from(&setup);
    drop(setup);

    let log = Log::capture();
    api.take_calls();
    api.set_health("a", TargetHealthState::Healthy);
    // It cannot ask: what was known is shown, with the problem.
    api.fault(Action::DescribeTargetGroups, Fault::Fails(CallErrorKind::Throttled), 1);
    let setup = Setup::with(&api, settings(), Some(resumed), "a");
    setup.until_phase(Phase::Serving, seconds(1)).await;
    assert_eq!(setup.registration.borrow().since, "2026-01-01T00:00:00Z");
    assert_eq!(state(&setup), "unhealthy", "as it was");
    setup.until(seconds(5), "healthy", |setup| state(setup) == "healthy").await;
    assert_eq!(log.lines("was unresolved"), NOBODY);
    assert_eq!(log.lines("healthy (was unhealthy)").len(), 1, "{:?}", log.lines("group a"));
    assert_eq!(api.count(Action::RegisterTargets) + api.count(Action::DeregisterTargets), 0);

    // A group that was deleted and made again meanwhile is another one.
    let resumed = resumed_from(&setup);
    drop(setup);
    api.make("a");
    let setup = Setup::with(&api, settings(), Some(resumed), "a");
    setup.until(LONG, "registered again", |setup| setup.api.targets("a") == [TARGET]).await;

    // Drained, it shows what it has left, and calls nobody.
    setup.notices.send_replace(Some(Notices { auto_scaling: Some("Standby".to_owned()), ..notices() }));
    setup.until_phase(Phase::Drained, LONG).await;
    let resumed = resumed_from(&setup);
    drop(setup);
    api.take_calls();
    let setup = Setup::unknown(&api, settings(), Some(resumed));
    setup.instance.send_replace(Some(instance("i-1", "a")));
    setup.notices.send_replace(Some(Notices { auto_scaling: Some("Standby".to_owned()), ..notices() }));
    setup.until_phase(Phase::Drained, seconds(1)).await;
    sleep(LONG).await;
    let known = (state(&setup), setup.registration.borrow().since.clone());
    assert_eq!(known, ("deregistered".to_owned(), "2026-01-01T00:00:00Z".to_owned()));
    assert_eq!(api.take_calls(), []);
    // And it comes back.
    setup.notices.send_replace(Some(notices()));
    setup.until(LONG, "registered", |setup| setup.api.targets("a") == [TARGET]).await;
    assert_ne!(setup.registration.borrow().since, "2026-01-01T00:00:00Z");
}

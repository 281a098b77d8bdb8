//! What an operator is told: of a drain, of a resume, of this program's own mistakes.

use super::*;

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
        setup.requests.send(Request::Panic).await.unwrap();
        sleep(LONG * 6).await;
        assert_eq!((setup.phase(), setup.api.targets("a")), (Phase::Serving, vec![TARGET.to_owned()]));
    }
    assert_eq!(log.lines("this is a bug").len(), 1, "{:?}", log.lines("bug"));
}

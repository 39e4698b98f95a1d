use super::*;

const IN: PortId = PortId(1);

fn any(action: Action) -> Rule<u32> {
    Rule {
        invert: false,
        iif: None,
        src: (0, 0),
        dst: (0, 0),
        tos: (0, 0),
        proto: 0,
        sport: Ports::Any,
        dport: Ports::Any,
        action,
    }
}

fn to(table: u16) -> Action {
    Action::Table { table, suppress: 0 }
}

/// Three tables with a default route each, to the next hops 1 (which throws), 2 and 3.
fn policy(rules: Vec<Rule<u32>>) -> Policy<Fib4> {
    let table = |hop| Arc::new(Fib4::build([([0, 0, 0, 0].into(), 0, hop)]));
    let suppressed = [0, 0, 1, 2].into();
    Policy { rules: rules.into(), tables: [1, 2, 3].map(table).into(), suppressed }
}

const NEXT_HOPS: [NextHop; 4] = [NextHop::Kernel, NextHop::Throw, NextHop::Kernel, NextHop::Kernel];

fn key() -> Key<u32> {
    Key { src: 0x0a00_0002, dst: 0x0a00_0102, iif: IN, tos: 0x10, proto: 17, sport: 9, dport: 80 }
}

fn looked(rules: Vec<Rule<u32>>) -> Option<u32> {
    policy(rules).lookup(&NEXT_HOPS, &key())
}

#[test]
fn the_first_table_that_answers() {
    assert_eq!(looked(vec![]), None);
    assert_eq!(looked(vec![any(to(1)), any(to(2))]), Some(2));
    assert_eq!(looked(vec![any(to(0)), any(to(2))]), Some(3), "throw goes on");
    assert_eq!(looked(vec![any(to(0))]), None);
    let suppressed = Action::Table { table: 1, suppress: 1 };
    assert_eq!(looked(vec![any(suppressed), any(to(2))]), Some(3));
    let other = Action::Table { table: 1, suppress: 2 };
    assert_eq!(looked(vec![any(other), any(to(2))]), Some(2));
    assert_eq!(looked(vec![any(Action::Refuse(0)), any(to(1))]), Some(0));
    assert_eq!(looked(vec![any(Action::Goto(2)), any(to(1)), any(to(2))]), Some(3));
    assert_eq!(looked(vec![any(Action::Goto(9)), any(to(1))]), None);
    assert_eq!(looked(vec![any(to(1)), any(Action::Goto(0))]), Some(2));
    assert_eq!(looked(vec![any(to(0)), any(Action::Goto(0))]), None, "no way back");
}

#[test]
fn a_rule_is_for_what_it_asks_for() {
    type Change = fn(&mut Rule<u32>, bool);
    let changes: [Change; 7] = [
        |r, fits| r.iif = Some(if fits { IN } else { PortId(2) }),
        |r, fits| r.src = (if fits { 0x0a00_0000 } else { 0x0b00_0000 }, 0xff00_0000),
        |r, fits| r.dst = (if fits { 0x0a00_0100 } else { 0x0a00_0000 }, 0xffff_ff00),
        |r, fits| r.tos = (if fits { 0x10 } else { 8 }, 0x1c),
        |r, fits| r.proto = if fits { 17 } else { 6 },
        |r, fits| r.sport = Ports::Range(if fits { 9 } else { 10 }, 11),
        |r, fits| r.dport = Ports::Masked(if fits { 0x50 } else { 0x40 }, 0xf0),
    ];
    for (n, change) in changes.into_iter().enumerate() {
        for (fits, invert) in [(true, false), (false, false), (true, true), (false, true)] {
            let mut rule = Rule { invert, ..any(to(1)) };
            change(&mut rule, fits);
            let expected = if fits == invert { 3 } else { 2 };
            assert_eq!(looked(vec![rule, any(to(2))]), Some(expected), "{n} {fits} {invert}");
        }
    }
}

#[test]
fn an_answer_is_the_packet_the_other_way_round() {
    let there = key();
    let back = there.of_answer(PortId(5));
    assert_eq!((back.src, back.dst, back.iif), (there.dst, there.src, PortId(5)));
    assert_eq!((back.sport, back.dport, back.tos), (80, 9, there.tos));
    assert_eq!(back.of_answer(IN), there);
}

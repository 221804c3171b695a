//! What strangers wrote, on a real terminal: names and logs with escape
//! sequences, bidirectional marks and NUL move no cursor, set no title and
//! turn no text round, whichever command shows them.

use farmbell_tests::harness::TestFarm;

const NAME: &str = "evil<b>\u{1b}]0;owned\u{7}\u{1b}[2J\u{9b}31m\u{202e}gpj";
const LOG: &str = r"printf 'before\033]52;c;b3duZWQ=\007\033[2J\033[?1049h\033c\302\23331m\342\200\256 \000\b\010after\n'";

/// What a command writes to a terminal of its own.
fn on_a_terminal(farm: &TestFarm, line: &str) -> String {
    let said = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!("exec \"$FARMBELL\" {line}"))
        .arg("/dev/null")
        .env("FARMBELL", farm.binaries().cli())
        .env("FARMBELL_SOCKET", farm.coordinator.socket())
        .env("TERM", "xterm-256color")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(said.status.success(), "{line}: {said:?}");
    String::from_utf8(said.stdout).unwrap()
}

/// Our own colours may pass: `ESC [ digits ; digits m`.
fn without_colours(text: &str) -> String {
    let mut pieces = text.split("\u{1b}[");
    let mut out = pieces.next().unwrap_or("").to_owned();
    for piece in pieces {
        let end = piece.find(|c: char| !c.is_ascii_digit() && c != ';');
        match end.filter(|end| piece[*end..].starts_with('m')) {
            Some(end) => out.push_str(&piece[end + 1..]),
            None => {
                out.push_str("\u{1b}[");
                out.push_str(piece);
            }
        }
    }
    out
}

#[test]
fn nothing_strangers_wrote_commands_a_terminal() {
    let farm = TestFarm::with_one_builder();
    let job = farm.cli().submit_script(&["--name", NAME], LOG);
    drop(farm.cli().verdict(&job));
    for line in [
        "jobs".to_owned(),
        format!("job show {job}"),
        format!("job explain {job}"),
        format!("logs {job}"),
        format!("logs -f {job}"),
        "events --tail 50".to_owned(),
        "builders".to_owned(),
    ] {
        let shown = without_colours(&on_a_terminal(&farm, &line));
        let harmful = |c: char| {
            (c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
                || ('\u{202a}'..='\u{202e}').contains(&c)
        };
        let bad: Vec<char> = shown.chars().filter(|c| harmful(*c)).collect();
        assert!(bad.is_empty(), "{line} wrote {bad:?}: {shown:?}");
        if line.starts_with("logs") {
            assert!(
                shown.contains("before") && shown.contains("after"),
                "{shown:?}"
            );
        }
    }
}

//! Reads as much of Rust as `check-layers` needs: blanks out what is not code,
//! finds words, and the rooms that paths lead to.

/// The code with comments, strings and characters blanked out; lines stay lines.
pub(super) fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < chars.len() {
        let end = skip(&chars, at);
        if end == at {
            out.push(chars[at]);
            at += 1;
        } else {
            out.extend(chars[at..end].iter().map(|&c| if c == '\n' { '\n' } else { ' ' }));
            at = end;
        }
    }
    out
}

/// The end of what begins at `at` and is not code; `at` itself where code is.
fn skip(chars: &[char], at: usize) -> usize {
    let next = |i: usize| chars.get(at + i).copied().unwrap_or('\0');
    match chars[at] {
        '/' if next(1) == '/' => find(chars, at, '\n'),
        '/' if next(1) == '*' => block_comment(chars, at),
        '"' => string(chars, at + 1),
        'r' if !in_word(chars, at) && raw_quote(chars, at + 1).is_some() => {
            raw_string(chars, at + 1)
        }
        'b' if !in_word(chars, at) && next(1) == 'r' && raw_quote(chars, at + 2).is_some() => {
            raw_string(chars, at + 2)
        }
        '\'' => character(chars, at),
        _ => at,
    }
}

fn in_word(chars: &[char], at: usize) -> bool {
    at > 0 && is_word(chars[at - 1])
}

fn find(chars: &[char], from: usize, wanted: char) -> usize {
    chars[from..].iter().position(|&c| c == wanted).map_or(chars.len(), |n| from + n)
}

fn block_comment(chars: &[char], start: usize) -> usize {
    let mut depth = 0;
    let mut at = start;
    while at + 1 < chars.len() {
        match (chars[at], chars[at + 1]) {
            ('/', '*') => {
                depth += 1;
                at += 2;
            }
            ('*', '/') => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    chars.len()
}

fn string(chars: &[char], mut at: usize) -> usize {
    while at < chars.len() {
        match chars[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    chars.len()
}

/// The number of `#` before the quote of a raw string.
fn raw_quote(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at.min(chars.len())..].iter().take_while(|&&c| c == '#').count();
    (chars.get(at + hashes) == Some(&'"')).then_some(hashes)
}

fn raw_string(chars: &[char], at: usize) -> usize {
    let hashes = raw_quote(chars, at).unwrap_or(0);
    let mut at = at + hashes + 1;
    while at < chars.len() {
        let closed =
            chars[at] == '"' && chars[at + 1..].iter().take_while(|&&c| c == '#').count() >= hashes;
        if closed {
            return at + 1 + hashes;
        }
        at += 1;
    }
    chars.len()
}

/// A character ends with a quote; a lifetime does not.
fn character(chars: &[char], at: usize) -> usize {
    match (chars.get(at + 1), chars.get(at + 2)) {
        (Some('\\'), _) => find(chars, (at + 3).min(chars.len()), '\'') + 1,
        (Some(_), Some('\'')) => at + 3,
        _ => at,
    }
    .min(chars.len())
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// All words, each with its line, counted from 1.
pub(super) fn words(code: &str) -> Vec<(usize, &str)> {
    let lines = code.lines().zip(1..);
    lines
        .flat_map(|(line, number)| {
            let words = line.split(|c| !is_word(c)).filter(|word| !word.is_empty());
            words.map(move |word| (number, word))
        })
        .collect()
}

/// The rooms that paths lead to, each with the line where it is named. `depth` is
/// the number of `super` from the file's module to the crate's root.
pub(super) fn rooms_used(code: &str, depth: usize) -> Vec<(usize, String)> {
    let tokens = tokens(code);
    let mut rooms = Vec::new();
    // Modules written out in the file are deeper: those that braces are open of.
    let mut open: Vec<bool> = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let here = depth + open.iter().filter(|&&module| module).count();
        match tokens[at].1.as_str() {
            "{" => open.push(at >= 2 && tokens[at - 2].1 == "mod"),
            "}" => drop(open.pop()),
            _ => {}
        }
        let begins = at == 0 || tokens[at - 1].1 != "::";
        match leads_to_root(&tokens[at..], here).filter(|_| begins) {
            Some(length) => {
                at += length;
                named(&tokens, at, &mut rooms);
            }
            None => at += 1,
        }
    }
    rooms
}

/// How many tokens at the start are a path to the crate's root, `::` included.
fn leads_to_root(tokens: &[(usize, String)], depth: usize) -> Option<usize> {
    let is = |i: usize, word: &str| tokens.get(i).is_some_and(|(_, token)| token == word);
    if (is(0, "crate") || is(0, "nsplane")) && is(1, "::") {
        return Some(2);
    }
    let start = if is(0, "self") && is(1, "::") { 2 } else { 0 };
    let mut supers = 0;
    while is(start + 2 * supers, "super") && is(start + 2 * supers + 1, "::") {
        supers += 1;
    }
    (supers > 0 && supers == depth).then_some(start + 2 * supers)
}

/// The rooms named at `at`: one, or a list in braces.
fn named(tokens: &[(usize, String)], at: usize, rooms: &mut Vec<(usize, String)>) {
    let Some((line, first)) = tokens.get(at) else { return };
    if first != "{" {
        if first.chars().all(is_word) {
            rooms.push((*line, first.clone()));
        }
        return;
    }
    let mut depth = 0;
    let mut begins = false;
    for (line, token) in &tokens[at..] {
        match token.as_str() {
            "{" => {
                depth += 1;
                begins = depth == 1;
            }
            "}" => depth -= 1,
            "," => begins = depth == 1,
            word => {
                if begins && word != "self" && word.chars().all(is_word) {
                    rooms.push((*line, word.to_owned()));
                }
                begins = false;
            }
        }
        if depth == 0 {
            return;
        }
    }
}

/// Words, `::` and single other characters, each with its line.
fn tokens(code: &str) -> Vec<(usize, String)> {
    let mut tokens = Vec::new();
    for (line, number) in code.lines().zip(1..) {
        let chars: Vec<char> = line.chars().collect();
        let mut at = 0;
        while at < chars.len() {
            let start = at;
            if is_word(chars[at]) {
                while at < chars.len() && is_word(chars[at]) {
                    at += 1;
                }
            } else if chars[at] == ':' && chars.get(at + 1) == Some(&':') {
                at += 2;
            } else {
                at += 1;
            }
            if !chars[start].is_whitespace() {
                tokens.push((number, chars[start..at].iter().collect()));
            }
        }
    }
    tokens
}

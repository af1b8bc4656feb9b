//! What a user agent is compared with. Text from a client is looked at once, whatever the number of patterns, but for those
//! with a `*`.

use crate::config::Result;

const LONGEST: usize = 128;

/// A user agent in lower case.
pub struct Agent(Vec<u8>);

impl Agent {
    pub fn new(value: &[u8]) -> Self {
        Agent(value.to_ascii_lowercase())
    }

    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|&byte| byte == b' ' || byte == b'\t')
    }
}

/// A number of patterns, each with the list that it came from.
#[derive(Default)]
pub struct Patterns {
    /// Words by their first byte: a word has to begin where one of the agent does.
    words: Vec<(Vec<u8>, usize)>,
    globs: Vec<(Vec<u8>, usize)>,
}

impl Patterns {
    /// A pattern without `*` is found as whole words, `ahrefsbot` in `AhrefsBot/7.0` but `bot` not; with `*`, which stands for
    /// anything, it is compared with the whole of the user agent.
    pub fn add(&mut self, pattern: &str, list: usize, path: &str) -> Result<()> {
        let text = pattern.trim().to_ascii_lowercase().into_bytes();
        if text.is_empty() || text.len() > LONGEST {
            return Err(format!("{path}: must have 1 to {LONGEST} bytes"));
        }
        if text.contains(&b'*') {
            if text.iter().all(|&byte| byte == b'*') {
                return Err(format!("{path}: would match everybody"));
            }
            self.globs.push((text, list));
        } else if !is_word(text[0]) || !is_word(text[text.len() - 1]) {
            return Err(format!("{path}: must begin and end with a letter or a digit, or have a '*'"));
        } else {
            self.words.push((text, list));
        }
        Ok(())
    }

    /// Has to come between `add` and `find`.
    pub fn sort(&mut self) {
        self.words.sort();
    }

    pub fn is_empty(&self) -> bool {
        self.words.is_empty() && self.globs.is_empty()
    }

    /// The list of a pattern that the agent matches: of the first word in it, else of the first glob.
    pub fn find(&self, agent: &Agent) -> Option<usize> {
        let text = &agent.0;
        let starts = (0..text.len()).filter(|&at| is_word(text[at]) && (at == 0 || !is_word(text[at - 1])));
        starts.filter_map(|at| self.word_at(&text[at..])).next().or_else(|| {
            self.globs.iter().find(|(glob, _)| matches(glob, text)).map(|&(_, list)| list)
        })
    }

    fn word_at(&self, text: &[u8]) -> Option<usize> {
        let from = self.words.partition_point(|(word, _)| word[0] < text[0]);
        let candidates = self.words[from..].iter().take_while(|(word, _)| word[0] == text[0]);
        let ends = |word: &[u8]| text.get(word.len()).map_or(true, |&byte| !is_word(byte));
        candidates.filter(|(word, _)| text.starts_with(word) && ends(word)).map(|&(_, list)| list).next()
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte >= 0x80
}

/// Goes back to the last `*` only, which is enough: at most as many steps as the product of both lengths.
fn matches(glob: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    let mut star = None;
    while seen < text.len() {
        if at < glob.len() && glob[at] == b'*' {
            star = Some((at, seen));
            at += 1;
        } else if at < glob.len() && glob[at] == text[seen] {
            at += 1;
            seen += 1;
        } else if let Some((position, taken)) = star {
            star = Some((position, taken + 1));
            at = position + 1;
            seen = taken + 1;
        } else {
            return false;
        }
    }
    glob[at..].iter().all(|&byte| byte == b'*')
}

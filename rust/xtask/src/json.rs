//! JSON as clang prints syntax trees: read piece by piece, for a tree has tens of megabytes,
//! and with the order of keys kept, for locations are told as differences to the last one.

use crate::Result;

/// One value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `null`, `true`, `false` or a number, as written.
    Word(String),
    /// A string.
    Text(String),
    /// An array.
    List(Vec<Value>),
    /// An object, in the order of its keys.
    Object(Vec<(String, Value)>),
}

impl Value {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Object(pairs) => pairs.iter().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// The string or word of a key.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.get(key)? {
            Self::Word(text) | Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Reads values off a text.
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// At the start of `text`.
    pub fn new(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    fn wrong<T>(&self, wanted: &str) -> Result<T> {
        Err(format!("bad JSON at byte {}: no {wanted}", self.at))
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(byte) = self.bytes.get(self.at) {
            if !byte.is_ascii_whitespace() {
                return Some(*byte);
            }
            self.at += 1;
        }
        None
    }

    fn take(&mut self, byte: u8) -> bool {
        let here = self.peek() == Some(byte);
        self.at += usize::from(here);
        here
    }

    /// Reads one value.
    ///
    /// # Errors
    /// There is none.
    pub fn value(&mut self) -> Result<Value> {
        match self.peek() {
            Some(b'"') => Ok(Value::Text(self.string()?)),
            Some(b'{') => {
                let mut pairs = Vec::new();
                self.object(&mut |reader, key| {
                    pairs.push((key, reader.value()?));
                    Ok(())
                })?;
                Ok(Value::Object(pairs))
            }
            Some(b'[') => {
                let mut all = Vec::new();
                self.list(&mut |reader| {
                    all.push(reader.value()?);
                    Ok(())
                })?;
                Ok(Value::List(all))
            }
            Some(_) => {
                let from = self.at;
                while self
                    .bytes
                    .get(self.at)
                    .is_some_and(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
                {
                    self.at += 1;
                }
                let word = self.bytes.get(from..self.at).unwrap_or_default();
                if word.is_empty() {
                    return self.wrong("value");
                }
                Ok(Value::Word(String::from_utf8_lossy(word).into_owned()))
            }
            None => self.wrong("value"),
        }
    }

    /// Reads an object; `each` reads the value of every key.
    ///
    /// # Errors
    /// There is no object, or `each` fails.
    pub fn object(&mut self, each: &mut dyn FnMut(&mut Self, String) -> Result<()>) -> Result<()> {
        if !self.take(b'{') {
            return self.wrong("object");
        }
        while !self.take(b'}') {
            let key = self.string()?;
            if !self.take(b':') {
                return self.wrong("colon");
            }
            each(self, key)?;
            if !self.take(b',') && self.peek() != Some(b'}') {
                return self.wrong("end of an object");
            }
        }
        Ok(())
    }

    /// Reads an array; `each` reads every element.
    ///
    /// # Errors
    /// There is no array, or `each` fails.
    pub fn list(&mut self, each: &mut dyn FnMut(&mut Self) -> Result<()>) -> Result<()> {
        if !self.take(b'[') {
            return self.wrong("array");
        }
        while !self.take(b']') {
            each(self)?;
            if !self.take(b',') && self.peek() != Some(b']') {
                return self.wrong("end of an array");
            }
        }
        Ok(())
    }

    fn string(&mut self) -> Result<String> {
        if !self.take(b'"') {
            return self.wrong("string");
        }
        let mut bytes = Vec::new();
        loop {
            let Some(byte) = self.bytes.get(self.at).copied() else {
                return self.wrong("end of a string");
            };
            self.at += 1;
            match byte {
                b'"' => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                b'\\' => {
                    let Some(escaped) = self.bytes.get(self.at).copied() else {
                        return self.wrong("end of a string");
                    };
                    self.at += 1;
                    match escaped {
                        b'n' => bytes.push(b'\n'),
                        b't' => bytes.push(b'\t'),
                        // Nothing in a declaration's name or type has these.
                        b'u' => self.at += 4,
                        other => bytes.push(other),
                    }
                }
                other => bytes.push(other),
            }
        }
    }
}

//! MongoDB's messages at the level of bytes, for stand-ins of its servers: what is in a document is theirs to know.

use std::io::{self, Read, Write};

const OP_REPLY: u32 = 1;
const OP_QUERY: u32 = 2004;
const OP_MSG: u32 = 2013;
const HEADER_BYTES: usize = 16;

/// A command: its document, and the lists of documents that came beside it, by their fields.
pub struct Command {
    /// BSON.
    pub document: Vec<u8>,
    /// Field, and BSON documents.
    pub lists: Vec<(String, Vec<Vec<u8>>)>,
}

/// Reads commands and sends back what `answer` makes of each, BSON for BSON, until the client goes away.
///
/// # Errors
/// What the stream says, and [`io::ErrorKind::InvalidData`] for what is no message.
pub fn serve(mut stream: impl Read + Write, mut answer: impl FnMut(&Command) -> Vec<u8>) -> io::Result<()> {
    loop {
        let mut header = [0; HEADER_BYTES];
        stream.read_exact(&mut header)?;
        let mut header = header.as_slice();
        let (length, request, _, operation) = (word(&mut header)?, word(&mut header)?, word(&mut header)?, word(&mut header)?);
        let mut body = vec![0; size(length)?.checked_sub(HEADER_BYTES).ok_or_else(strange)?];
        stream.read_exact(&mut body)?;
        let document = answer(&command(operation, &body)?);
        let (operation, before) = match operation {
            // Flags, cursor, first document, number of documents.
            OP_QUERY => (OP_REPLY, [8_u32.to_le_bytes().to_vec(), vec![0; 12], 1_u32.to_le_bytes().to_vec()].concat()),
            // Flags and the kind of the section.
            _ => (OP_MSG, vec![0; 5]),
        };
        let total = u32::try_from(HEADER_BYTES + before.len() + document.len()).map_err(|_| strange())?;
        let head: Vec<u8> = [total, 1, request, operation].iter().flat_map(|word| word.to_le_bytes()).collect();
        stream.write_all(&[head, before, document].concat())?;
    }
}

fn command(operation: u32, mut body: &[u8]) -> io::Result<Command> {
    // Flags.
    word(&mut body)?;
    if operation == OP_QUERY {
        // The name of a collection, and two numbers.
        text(&mut body)?;
        word(&mut body)?;
        word(&mut body)?;
        return Ok(Command { document: sized(&mut body)?, lists: Vec::new() });
    }
    if operation != OP_MSG {
        return Err(strange());
    }
    let mut command = Command { document: Vec::new(), lists: Vec::new() };
    while let Some((kind, rest)) = body.split_first() {
        body = rest;
        let section = sized(&mut body)?;
        if *kind == 0 {
            command.document = section;
            continue;
        }
        let mut section = section.get(4..).ok_or_else(strange)?;
        let field = text(&mut section)?;
        let mut documents = Vec::new();
        while !section.is_empty() {
            documents.push(sized(&mut section)?);
        }
        command.lists.push((field, documents));
    }
    Ok(command)
}

fn strange() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "it is no message of MongoDB")
}

fn size(word: u32) -> io::Result<usize> {
    usize::try_from(word).map_err(|_| strange())
}

fn word(bytes: &mut &[u8]) -> io::Result<u32> {
    let (word, rest) = bytes.split_first_chunk().ok_or_else(strange)?;
    *bytes = rest;
    Ok(u32::from_le_bytes(*word))
}

fn text(bytes: &mut &[u8]) -> io::Result<String> {
    let end = bytes.iter().position(|byte| *byte == 0).ok_or_else(strange)?;
    let (text, rest) = bytes.split_at(end);
    *bytes = rest.get(1..).unwrap_or_default();
    String::from_utf8(text.to_vec()).map_err(|_| strange())
}

/// What begins with its own length.
fn sized(bytes: &mut &[u8]) -> io::Result<Vec<u8>> {
    let length = size(word(&mut &**bytes)?)?;
    let (piece, rest) = bytes.split_at_checked(length).filter(|_| length >= 4).ok_or_else(strange)?;
    *bytes = rest;
    Ok(piece.to_vec())
}

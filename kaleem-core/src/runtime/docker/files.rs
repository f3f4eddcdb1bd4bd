//! Files that come with a definition, as the archive that the engine unpacks in a container.

use bytes::Bytes;

use crate::definition::InjectedFile;

/// One archive with these files, for `directory`, which holds them all. Directories on the way are made by the engine.
pub(super) fn archive(directory: &str, files: &[&InjectedFile]) -> std::io::Result<Bytes> {
    let mut builder = tar::Builder::new(Vec::new());
    for file in files {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(u64::try_from(file.content.len()).unwrap_or(u64::MAX));
        header.set_mode(file.mode);
        header.set_uid(file.uid);
        header.set_gid(file.gid);
        // The same file makes the same archive: no time in it.
        header.set_mtime(0);
        let path = file.path.strip_prefix(directory).unwrap_or(&file.path);
        builder.append_data(&mut header, path.trim_start_matches('/'), file.content.as_bytes())?;
    }
    builder.into_inner().map(Bytes::from)
}

/// The contents of the one file in an archive that the engine made.
pub(super) fn only_file(archive: &[u8]) -> std::io::Result<Option<Vec<u8>>> {
    let mut archive = tar::Archive::new(archive);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut content = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut content)?;
            return Ok(Some(content));
        }
    }
    Ok(None)
}

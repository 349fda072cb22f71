//! A store over TCP for tests with processes: the parent serves a [`MemoryStore`], each call is one connection.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use r2o_c10d::{MemoryStore, Store};

/// Serves a store until the test ends; its address.
pub(crate) fn serve(store: Arc<MemoryStore>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let store = Arc::clone(&store);
            thread::spawn(move || answer(&store, stream));
        }
    });
    address
}

fn answer(store: &MemoryStore, mut stream: TcpStream) -> Option<()> {
    let fields: Vec<Vec<u8>> = read_fields(&mut stream)?;
    let text = |i: usize| String::from_utf8(fields[i].clone()).unwrap();
    let number = |i: usize| text(i).parse::<i64>().unwrap();
    let reply = match text(0).as_str() {
        "set" => store.set(&text(1), &fields[2]).map(|()| Vec::new()),
        "get" => store.get(&text(1), Duration::from_millis(number(2) as u64)),
        "add" => store.add(&text(1), number(2)).map(|n| n.to_string().into_bytes()),
        "compare_set" => store.compare_set(&text(1), &fields[2], &fields[3]),
        "check" => {
            let keys: Vec<String> = (1..fields.len()).map(text).collect();
            store.check(&keys).map(|yes| vec![u8::from(yes)])
        }
        _ => store.delete(&text(1)).map(|yes| vec![u8::from(yes)]),
    };
    match reply {
        Ok(value) => write_fields(&mut stream, &[b"ok", &value]),
        Err(reason) => write_fields(&mut stream, &[b"error", reason.as_bytes()]),
    }
}

fn write_fields(stream: &mut TcpStream, fields: &[&[u8]]) -> Option<()> {
    let mut message = (fields.len() as u32).to_le_bytes().to_vec();
    for field in fields {
        message.extend((field.len() as u32).to_le_bytes());
        message.extend_from_slice(field);
    }
    stream.write_all(&message).ok()
}

fn read_fields(stream: &mut TcpStream) -> Option<Vec<Vec<u8>>> {
    let mut word = [0; 4];
    stream.read_exact(&mut word).ok()?;
    let mut fields = Vec::new();
    for _ in 0..u32::from_le_bytes(word) {
        stream.read_exact(&mut word).ok()?;
        let mut field = vec![0; u32::from_le_bytes(word) as usize];
        stream.read_exact(&mut field).ok()?;
        fields.push(field);
    }
    Some(fields)
}

/// The client's side.
pub(crate) struct TcpStore(pub(crate) String);

impl TcpStore {
    fn call(&self, fields: &[&[u8]]) -> Result<Vec<u8>, String> {
        let mut stream = TcpStream::connect(&self.0).map_err(|e| e.to_string())?;
        write_fields(&mut stream, fields).ok_or("the store went away")?;
        let reply = read_fields(&mut stream).ok_or("the store went away")?;
        if reply[0] == b"ok" { Ok(reply[1].clone()) } else { Err(String::from_utf8_lossy(&reply[1]).into_owned()) }
    }
}

impl Store for TcpStore {
    fn set(&self, key: &str, value: &[u8]) -> Result<(), String> {
        self.call(&[b"set", key.as_bytes(), value]).map(drop)
    }
    fn get(&self, key: &str, timeout: Duration) -> Result<Vec<u8>, String> {
        self.call(&[b"get", key.as_bytes(), timeout.as_millis().to_string().as_bytes()])
    }
    fn add(&self, key: &str, delta: i64) -> Result<i64, String> {
        let sum = self.call(&[b"add", key.as_bytes(), delta.to_string().as_bytes()])?;
        String::from_utf8_lossy(&sum).parse().map_err(|_| "no number".to_owned())
    }
    fn compare_set(&self, key: &str, expected: &[u8], desired: &[u8]) -> Result<Vec<u8>, String> {
        self.call(&[b"compare_set", key.as_bytes(), expected, desired])
    }
    fn check(&self, keys: &[String]) -> Result<bool, String> {
        let mut fields: Vec<&[u8]> = vec![b"check"];
        fields.extend(keys.iter().map(|key| key.as_bytes()));
        self.call(&fields).map(|yes| yes == [1])
    }
    fn delete(&self, key: &str) -> Result<bool, String> {
        self.call(&[b"delete", key.as_bytes()]).map(|yes| yes == [1])
    }
}

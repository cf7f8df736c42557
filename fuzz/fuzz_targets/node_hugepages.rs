#![no_main]
//! Sizes of hugepages: what is accepted is a whole number of pages within the
//! limits, what is refused is explained.

use hugepages::{Bytes, PageSize, Request};
use libfuzzer_sys::fuzz_target;
use slurm_efa_fuzz::assert_presentable;

const MOST: Bytes = Bytes(64 << 30);
const MEMORY: Bytes = Bytes(96 << 30);

fuzz_target!(|input: (u32, &str)| {
    let (cpus, text) = input;
    if let Err(error) = text.parse::<PageSize>() {
        assert_presentable(&error.to_string());
    }
    let request: Request = match text.parse() {
        Ok(request) => request,
        Err(error) => return assert_presentable(&format!("{error}")),
    };
    for page in PageSize::ALL {
        match request.pages(page, cpus, Some(MOST), Some(MEMORY)) {
            Ok(pages) => {
                assert!(page.total(pages) <= MOST);
                if let Request::Size(size) = request {
                    assert_eq!(page.total(pages), size);
                }
            }
            Err(error) => assert_presentable(&error.to_string()),
        }
    }
});

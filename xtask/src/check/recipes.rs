//! Every job file under deploy/jobs, and every job in a Markdown page, is one that the service takes.

use r2o_types::TrainJob;

use super::{Violation, text::TextFile};

/// All recipes and the examples of the documents.
pub(super) fn check(files: &[TextFile]) -> Vec<Violation> {
    let recipes = files.iter().filter(|file| file.path.starts_with("deploy/jobs/") && file.is("yaml"));
    let mut found: Vec<_> = recipes.flat_map(|file| read(&file.path, &file.text)).collect();
    for page in files.iter().filter(|file| file.is("md")) {
        for (number, text) in examples(page) {
            found.extend(read(&page.at(number), &text));
        }
    }
    found
}

fn read(place: &str, text: &str) -> Option<Violation> {
    TrainJob::parse(text).err().map(|errors| Violation::new(place, format!("is no job: {errors}")))
}

/// The fenced blocks of a page that declare a job, with the line they start on.
fn examples(page: &TextFile) -> Vec<(usize, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (number, line) in page.lines() {
        match (&mut open, line.trim_start().starts_with("```")) {
            (None, true) => open = Some((number, String::new())),
            (Some(_), true) => blocks.extend(open.take()),
            (Some((_, text)), false) => {
                text.push_str(line);
                text.push('\n');
            }
            (None, false) => {}
        }
    }
    blocks.retain(|(_, text)| text.contains("kind: TrainJob"));
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = "apiVersion: r2o.dev/v1\nkind: TrainJob\nmetadata: {name: x}\nspec:\n  data: {url: file:///x}\n";

    #[test]
    fn a_misspelt_recipe_is_found() {
        let planted = [
            TextFile::planted("deploy/jobs/good.yaml", JOB),
            TextFile::planted("deploy/jobs/bad.yaml", &JOB.replace("data:", "dota:")),
            TextFile::planted("elsewhere/bad.yaml", "dota: 1\n"),
        ];
        let found = check(&planted);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].place.contains("bad.yaml") && found[0].what.contains("dota"), "{found:?}");
    }

    #[test]
    fn every_recipe_of_the_repository_is_a_job() {
        let files = crate::check::text::tracked().unwrap();
        let recipes = files.iter().filter(|file| file.path.starts_with("deploy/jobs/") && file.is("yaml")).count();
        assert!(recipes >= 19, "{recipes} recipes");
        assert_eq!(check(&files), []);
    }

    #[test]
    fn an_example_in_a_page_is_read() {
        let page = TextFile::planted("a.md", &format!("text\n```yaml\n{}```\n", JOB.replace("url", "uri")));
        let found = check(&[page]);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].place, "a.md:2");
    }
}

"""For the site: the rows, scripts and notebooks that pages link to come with it."""

from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]


def on_files(files, config):
    """Add them."""
    for path in sorted(ROOT.glob("results/**/*")):
        if path.suffix in (".csv", ".json", ".jsonl", ".py") and path.is_file():
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    for path in sorted(ROOT.glob("examples/*.ipynb")):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(path)))
    for name in ("LICENSE", "CHANGELOG.md", "CITATION.cff"):
        files.append(File.generated(config, name, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Links as they are in the site."""
    return markdown.replace("](../results/", "](results/").replace("](../examples/", "](examples/")

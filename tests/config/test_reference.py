import re
from pathlib import Path

import pytest

from devhost_server.config.models import Document
from devhost_server.config.reference import reference
from devhost_server.config.schema import item_model, json_schema, known_paths, model_at, model_of
from devhost_server.config.unbuilt import UNBUILT
from devhost_server.options import Options
from tests.config.support import loaded

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def models(model: type[Options] = Document):
    yield model
    for field in model.model_fields.values():
        for inner in (model_of(field.annotation), item_model(field.annotation)):
            if inner is not None:
                yield from models(inner)


def test_the_page_is_current():
    assert PAGE.read_text(encoding="utf-8") == reference(), (
        "run `python -m devhost_server.config.reference > docs/configuration.md`"
    )


@pytest.mark.parametrize("model", sorted(set(models()), key=lambda model: model.__name__))
def test_every_key_says_what_it_is(model):
    for name, field in model.model_fields.items():
        assert field.description, f"{model.__name__}.{name}"
        assert field.description.endswith((".", ")")), f"{model.__name__}.{name}"


def test_every_key_is_on_the_page():
    page = reference()
    unbuilt = {feature.path[-1] for feature in UNBUILT}
    for model in set(models()):
        for name, field in model.model_fields.items():
            is_section = model_of(field.annotation) or item_model(field.annotation)
            assert f"| `{name}` |" in page or is_section or name in unbuilt, f"{model.__name__}.{name}"


def test_the_examples_on_the_page_are_good(tmp_path):
    blocks = re.findall(r"```yaml\n(.*?)```", reference(), re.DOTALL)
    examples = [block for block in blocks if not block.startswith("# yaml-language-server")]
    assert len(examples) == 2
    for index, block in enumerate(examples):
        folder = tmp_path / str(index)
        folder.mkdir()
        assert loaded(folder, block, sets=("upstreams.api.targets=8000",)).settings.routes


def references(schema):
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for each in schema:
            yield from references(each)


def test_the_schema_is_whole():
    schema = json_schema()
    assert {name.removeprefix("#/$defs/") for name in references(schema)} == set(schema["$defs"])
    assert set(schema["properties"]) == set(Document.model_fields)
    assert schema["additionalProperties"] is False


def test_the_schema_knows_shorthand_expressions_and_null():
    definitions = json_schema()["$defs"]
    workers = definitions["ServerSection"]["properties"]["workers"]["anyOf"]
    assert {"$ref": "#/$defs/Expression"} in workers
    assert {"type": "null"} in workers
    assert {"type": "integer"} in workers
    assert any(each.get("type") == ["string", "integer"] for each in definitions["RouteSection"]["anyOf"])
    bind = definitions["ServerSection"]["properties"]["bind"]["anyOf"]
    assert {each.get("type") for each in bind} >= {"array", "null"}


def test_models_are_found_by_path():
    assert model_at(()) is Document
    assert "timeouts" in model_at(("upstreams", "anything")).model_fields
    assert "weight" in model_at(("upstreams", "anything", "targets", 0)).model_fields
    assert "body" in model_at(("routes", "x", "respond")).model_fields
    assert model_at(("nope",)) is None
    assert model_at(("domain", "x")) is None
    assert ("server", "limits", "body") in set(known_paths())

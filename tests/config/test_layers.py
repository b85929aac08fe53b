"""The configuration: shipped files, merging, refusals, round trips."""

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from mindspore_cvae.config import contradictions
from mindspore_cvae.config import keys as config_keys
from mindspore_cvae.config import layers as configuration
from mindspore_cvae.config import options as config_options
from mindspore_cvae.config.keys import OPTIONS, Config, flatten
from mindspore_cvae.config.layers import load, override, read_saved
from mindspore_cvae.errors import InputError
from mindspore_cvae.systems import SYSTEMS

SHIPPED = ("quickstart", "ptb", "yahoo", "yelp")
CONTRASTIVE = ("cvae", "cvae_mi", "cvae_plus", "cvae_plus_mi")
IMPLICIT = ("ivae", "ivae_mi", *CONTRASTIVE)


def write(folder: Path, text: str) -> str:
    path = folder / "test.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def refusal(*arguments, **options) -> str:
    with pytest.raises(InputError) as caught:
        load(*arguments, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("system", SYSTEMS)
@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_file_loads_for_every_system(name, system):
    config = load(f"configs/{name}.yaml", system=system)
    assert config.system == system
    assert config.data.vocabulary_size == {"yahoo": 20001, "yelp": 20001}.get(name, 10002)


def test_ptb_has_the_values_of_the_paper():
    for system in SYSTEMS:
        config = load("ptb", system=system)
        model, train = config.model, config.train
        assert (model.embedding_size, model.hidden_size, model.latent_size) == (256, 256, 32)
        assert (model.critic_size, model.critic_layers, model.decoder_dropout) == (512, 3, 0.5)
        assert (train.learning_rate, train.critic_learning_rate) == (1e-3, 1e-5)
        assert (train.critic_updates, train.clip_norm, config.data.batch_size) == (5, 5.0, 32)
        assert train.epochs == (60 if system in CONTRASTIVE else 40)
        assert model.init_scale == 0.1
    assert load("ptb", system="beta_vae").slots.beta_max == 0.5


@pytest.mark.parametrize("name", ["yahoo", "yelp"])
def test_yahoo_and_yelp_have_the_values_of_the_paper(name):
    for system in SYSTEMS:
        config = load(name, system=system)
        assert (config.model.embedding_size, config.model.hidden_size) == (512, 1024)
        assert config.model.latent_size == 32
        assert config.train.learning_rate == 8e-4
        assert config.model.init_scale == (0.01 if system in IMPLICIT else 0.1)
        assert config.train.epochs == (60 if system in CONTRASTIVE else 40)
        assert config.data.unk_alias == "_UNK"
        assert config.data.label_column == (name == "yelp")
    assert load(name, system="beta_vae").slots.beta_max == 0.4


@pytest.mark.parametrize("name", ["yahoo", "yelp"])
@pytest.mark.parametrize("system", ["cvae_plus", "cvae_plus_mi"])
def test_the_large_corpora_train_the_systems_of_the_table(name, system):
    assert load(name, system=system).slots == SYSTEMS[system]


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_file_holds_only_differences(name, tmp_path):
    document = yaml.safe_load(configuration.find(name).read_text(encoding="utf-8"))
    per_system = document.pop("per_system", {})
    shared = write(tmp_path, yaml.safe_dump(document))
    own, of_systems = configuration._read_yaml(configuration.find(name))
    assert per_system.keys() == of_systems.keys()
    defaults = flatten(Config())
    assert [key for key, setting in own.items() if setting.value == defaults[key]] == []
    for system, block in of_systems.items():
        without = flatten(load(shared, system=system))
        assert [key for key, setting in block.items() if setting.value == without[key]] == []


def test_shipped_files_are_found_by_name_from_anywhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert load("ptb") == load("configs/ptb.yaml") == load("ptb.yaml")
    assert load() == load("quickstart")
    assert "did you mean yahoo?" in refusal("yahooo")
    assert "elsewhere/ptb.yaml does not exist" in refusal("elsewhere/ptb.yaml")


def test_later_layers_win(tmp_path):
    path = write(
        tmp_path,
        "system: cvae\n"
        "seed: 3\n"
        "slots: {temperature: 0.2, encoder_dropout: 0.4, beta_max: 0.7}\n"
        "train: {epochs: 7}\n"
        "per_system:\n"
        "  cvae:\n"
        "    slots: {encoder_dropout: 0.5}\n"
        "    train.epochs: 9\n"
        "  vae: {train: {epochs: 11}}\n",
    )
    config = load(path, ["slots.beta_max=0.9"])
    assert config.model.hidden_size == Config().model.hidden_size
    assert config.slots.contrast == "info_nce"  # the row over the default
    assert config.slots.temperature == 0.2  # the file over the row
    assert (config.slots.encoder_dropout, config.train.epochs) == (0.5, 9)  # per_system over it
    assert config.slots.beta_max == 0.9  # the command line over all
    assert load(path, system="vae").train.epochs == 11
    assert load(path, ["train.epochs=1", "train.epochs=2"]).train.epochs == 2
    assert load(path, ["seed=4"]).seed == 4
    assert load(path, ["seed=4"], seed=5).seed == 5


def test_null_slots_take_the_rows_value(tmp_path):
    path = write(tmp_path, "slots: {temperature: 0.5}\n")
    assert load(path, system="cvae").slots.temperature == 0.5
    assert load(path, ["slots.temperature=null"], system="cvae").slots.temperature == 0.05


@pytest.mark.parametrize("text", ["1e-3", "1E-3", "0.001", "1.e-3", "+1e-3"])
def test_numbers_without_a_dot_are_numbers(tmp_path, text):
    path = write(tmp_path, f"train: {{learning_rate: {text}}}\n")
    assert load(path).train.learning_rate == 1e-3
    assert load(None, [f"train.learning_rate={text}"]).train.learning_rate == 1e-3


def test_values_are_read_by_the_type_of_their_key():
    overrides = ["data.dir=17", "data.lowercase=True", "train.patience=3", "train.clip_norm=4"]
    config = load(None, [*overrides, "eval.max_sentences=null"])
    assert (config.data.dir, config.data.lowercase, config.train.patience) == ("17", True, 3)
    assert config.train.clip_norm == 4.0 and isinstance(config.train.clip_norm, float)
    assert config.eval.max_sentences is None
    assert load(None, ["data.dir=a=b"]).data.dir == "a=b"


def test_slots_combine_freely():
    on_gaussian = ["slots.contrast=info_nce", "slots.views=2"]
    assert load("ptb", on_gaussian, system="vae").slots.divergence == "gaussian_kl"
    without_contrast = ["slots.contrast=none", "slots.views=1", "slots.squared_difference=none"]
    slots = load("ptb", without_contrast, system="cvae_plus_mi").slots
    assert (slots.critic_loss, slots.contrast) == ("circle_pairwise", "none")
    # An option that another slot makes idle is no contradiction.
    load("yelp", ["slots.contrast=none"], system="cvae_plus_mi")


WRONG = [
    (option.key, text)
    for option in OPTIONS.values()
    for text in {
        int: ["1.5", "word", ""],
        float: ["word", "nan", "inf", ""],
        bool: ["1", "maybe"],
    }.get(option.type, [""] if not option.choices else ["", "neither"])
]


@pytest.mark.parametrize(("key", "text"), WRONG)
def test_wrong_types_on_the_command_line_are_refused(key, text):
    message = refusal(None, [f"{key}={text}"])
    assert (
        message.startswith(f"command line: {key} must be ") and OPTIONS[key].expected() in message
    )


@pytest.mark.parametrize("key", OPTIONS)
@pytest.mark.parametrize(
    "text",
    ["[1, 2]", "{a: 1}", "2024-01-01", "!!binary aGk=", "!!int x", "!!timestamp x", "!!float []"],
)
def test_wrong_types_in_a_file_are_refused_with_their_line(tmp_path, key, text):
    path = write(tmp_path, f"# a comment\n{key}: {text}\n")
    if (
        text in ("!!int x", "!!timestamp x")
        and OPTIONS[key].type is str
        and not OPTIONS[key].choices
    ):
        assert flatten(load(path))[key] == "x"
        return
    assert refusal(path).startswith(f"{path}, line 2: {key} must be ")


@pytest.mark.parametrize("key", [key for key, option in OPTIONS.items() if not option.nullable])
def test_null_is_refused_where_it_means_nothing(tmp_path, key):
    message = refusal(write(tmp_path, f"{key}: null\n"))
    assert f"{key} must be" in message and message.endswith("not null")


def outside(option: config_options.Option) -> list[str]:
    """Values just outside of an option's interval."""
    low, high = (float(end) for end in option.interval[1:-1].split(","))
    step = 1 if option.type is int else 1e-9 * max(1.0, abs(high))
    below = low if option.interval[0] == "(" else low - step
    above = high if option.interval[-1] == ")" else high + step
    return [repr(option.type(below)), repr(option.type(above))]


@pytest.mark.parametrize(
    ("key", "text"),
    [
        (option.key, text)
        for option in OPTIONS.values()
        if option.interval
        for text in outside(option)
    ],
)
def test_values_out_of_range_are_refused(tmp_path, key, text):
    for message in (refusal(None, [f"{key}={text}"]), refusal(write(tmp_path, f"{key}: {text}\n"))):
        assert f"{key} must be" in message and OPTIONS[key].interval in message


@pytest.mark.parametrize("key", OPTIONS)
def test_misspelt_keys_are_refused_with_a_suggestion(tmp_path, key):
    misspelt = key[:-1] + "qx"
    for message in (
        refusal(None, [f"{misspelt}=1"]),
        refusal(write(tmp_path, f"{misspelt}: 1\n")),
        refusal(write(tmp_path, f"per_system:\n  vae:\n    {misspelt}: 1\n")),
    ):
        assert f"unknown key {misspelt}" in message and "keys" in message
    assert "test.yaml, line 1" in refusal(write(tmp_path, f"{misspelt}: 1\n"))


def test_suggestions_name_the_whole_key():
    assert "did you mean train.epochs?" in refusal(None, ["epochs=1"])
    assert "did you mean train.epochs?" in refusal(None, ["train.epoch=1"])
    assert "did you mean vae?" in refusal(None, ["system=vea"])
    message = refusal(None, [], system="gpt")
    assert all(system in message for system in SYSTEMS)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "train:\n  epochs: 1\n  epochs: 2\n",
            "line 3: train.epochs is set twice (first in line 2)",
        ),
        ("train: 5\n", "line 1: train must be a mapping"),
        ("- a\n", "line 1: a configuration must be a mapping"),
        ("word\n", "line 1: a configuration must be a mapping"),
        ("train: {epochs: 1\n", "line 2"),
        ("a: b: c\n", "line 1"),
        ("? [x]\n: 1\n", "line 1: a key must be a word"),
        ("seed: &a 1\ntrain.epochs: *a\n", "line 2: aliases"),
        ("per_system: {gpt: {}}\n", "system must be one of"),
        ("per_system: {vae: {system: ae}}\n", "cannot change the system"),
        ("per_system: {vae: {train: {epochs: x}}}\n", "train.epochs must be an integer"),
        ("seed: 1\n---\nseed: 2\n", "line 2"),
        ("seed: \x07\n", "special characters"),
        ("seed: 0x" + "f" * 5000 + "\n", "not a huge number"),
        ("seed: " + "9" * 5000 + "\n", "seed must be"),
        ("[" * 5000, "nested too deeply"),
        ("seed: !!python/object/apply:os.getpid []\n", "not a list"),
        ("seed: !!python/name:os.getpid ''\n", "could not determine a constructor"),
    ],
)
def test_broken_files_are_refused(tmp_path, text, expected):
    path = write(tmp_path, text)
    message = refusal(path)
    assert path in message and expected in message


def test_unreadable_files_are_refused(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("data.dir: \u00e9\n".encode("latin-1"))
    assert "latin.yaml is not UTF-8 text" in refusal(latin)
    assert "does not exist" in refusal(tmp_path / "missing.yaml")
    assert "does not exist" in refusal(tmp_path)
    assert "--set takes KEY=VALUE" in refusal(None, ["seed"])


def test_empty_files_and_sections_change_nothing(tmp_path):
    for text in ("", "# only a comment\n", "train:\ndata: {}\nper_system:\n", "\ufeff"):
        assert load(write(tmp_path, text)) == Config()


CONTRADICTIONS = [
    ("cvae", ["slots.views=1"], "two views"),
    ("cvae", ["data.batch_size=1"], "at least 2"),
    (
        "cvae",
        ["slots.contrast_on=h", "slots.encoder_dropout=0"],
        "both views of a sentence are equal",
    ),
    (
        "cvae",
        ["slots.contrast_on=h", "slots.prior_negatives=3"],
        "only be negatives of a contrast on z",
    ),
    ("ivae", ["slots.squared_difference=squares"], "two views"),
    (
        "vae",
        ["slots.views=2", "slots.squared_difference=squares"],
        "L_SQ needs critics",
    ),
    ("ivae", ["slots.divergence=gaussian_kl"], "needs the posterior gaussian"),
    ("ae", ["slots.divergence=gaussian_kl"], "needs the posterior gaussian"),
    ("ivae", ["slots.divergence_sign=printed"], "that of a circle loss"),
    ("ivae", ["slots.step=joint"], "needs the step critic_then_model"),
    ("vae", ["slots.step=critic_then_model"], "needs critics"),
    ("ae", ["slots.step=aggressive"], "need the divergence gaussian_kl"),
    ("vae", ["slots.step=semi_amortized"], "need each other"),
    ("vae", ["slots.refinement_steps=3"], "need each other"),
    ("sa_vae", ["slots.refinement_steps=0"], "need each other"),
    ("sa_vae", ["precision=fast"], "too coarse"),
    ("sa_vae", ["train.loss_scale=1024"], "the steps joint and critic_then_model"),
    ("lagging_vae", ["train.loss_scale=1024"], "the steps joint and critic_then_model"),
    ("sa_vae", ["model.amp_level=O2"], "half precision needs a loss that is scaled"),
    ("lagging_vae", ["model.amp_level=O2"], "half precision needs a loss that is scaled"),
    ("lstm_lm", ["slots.views=2", "slots.contrast=info_nce"], "without a latent variable"),
    (
        "lstm_lm",
        ["slots.step=critic_then_model", "slots.divergence=joint_dual"],
        "without a latent variable",
    ),
    ("vae", ["slots.reconstruction=prior"], "a reconstruction from the prior is Eq. 19's"),
    ("vae", ["slots.swap_negatives=true"], "can only be negatives of a contrast"),
    (
        "sa_vae",
        ["slots.contrast=info_nce", "slots.views=2", "slots.swap_negatives=true"],
        "what the step semi_amortized refines",
    ),
    ("vae", ["data.dir=null", "data.unit=character"], "the embedded corpus is made of words"),
    ("vae", ["data.unk_alias=_UNK", "data.unit=sentencepiece"], "an alias of <unk> is a word"),
    ("vae", ["data.dir=a", "data.unit=sentencepiece", "data.pieces=10000"], "has no room for so"),
    ("lstm_lm", ["model.first_state_bias=true"], "no map from z to the decoder's first state"),
    ("vae", ["data.unk_alias=two words"], "must be one word"),
]


@pytest.mark.parametrize(("system", "overrides", "expected"), CONTRADICTIONS)
def test_contradictions_are_refused_and_say_where_they_come_from(system, overrides, expected):
    message = refusal("ptb", overrides, system=system)
    assert expected in message and "(command line)" in message
    assert overrides[-1].split("=")[0] in message


def test_every_contradiction_is_tried():
    for _, keys, reason in contradictions._CONTRADICTIONS:
        assert [case for case in CONTRADICTIONS if case[2] in reason], (keys, reason)


def test_prior_negatives_and_swaps_are_fine_where_they_make_sense():
    assert load(None, ["slots.prior_negatives=3"], system="cvae").slots.prior_negatives == 3
    swap = ["slots.augmentation=swap", "slots.encoder_dropout=0", "slots.contrast_on=h"]
    assert load(None, swap, system="cvae").slots.augmentation == "swap"


def valid_values(option: config_options.Option) -> st.SearchStrategy:
    if option.choices:
        strategy = st.sampled_from(option.choices)
    elif option.type is bool:
        strategy = st.booleans()
    elif option.type is str:
        anything = st.characters(exclude_categories=("Cc",))
        strategy = st.text(anything | st.sampled_from("\u3000\xa0\udce9\U0001faea"), min_size=1)
        if option.key == "data.unk_alias":
            strategy = strategy.filter(lambda text: len(text.split()) == 1)
    else:
        low, high = (float(end) for end in option.interval[1:-1].split(","))
        if option.type is int:
            strategy = st.integers(int(low), int(high))
        else:
            opened = {
                "exclude_min": option.interval[0] == "(",
                "exclude_max": option.interval[-1] == ")",
            }
            strategy = st.floats(low, high, **opened)
    return st.none() | strategy if option.nullable else strategy


FREE_OF_CONTRADICTIONS = {
    key: valid_values(option)
    for key, option in OPTIONS.items()
    if not key.startswith("slots.")
    and key not in ("system", "data.batch_size", "precision", "train.loss_scale")
    and key not in ("model.amp_level", "model.first_state_bias", "data.unit")
}


@settings(max_examples=100, deadline=None)
@given(system=st.sampled_from(list(SYSTEMS)), values=st.fixed_dictionaries(FREE_OF_CONTRADICTIONS))
def test_what_is_saved_is_read_back(tmp_path_factory, system, values):
    config = Config(system=system, slots=SYSTEMS[system])
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        change = {name: value}
        if section:
            change = {section: dataclasses.replace(getattr(config, section), **change)}
        config = dataclasses.replace(config, **change)
    path = tmp_path_factory.mktemp("saved") / "config.yaml"
    config.save(path)
    assert read_saved(path) == config
    assert read_saved(path).fingerprint() == config.fingerprint()
    assert yaml.safe_load(path.read_text(encoding="utf-8")).keys() == config.to_dict().keys()


@pytest.mark.parametrize("key", OPTIONS)
def test_a_key_that_a_saved_configuration_lacks_has_its_default(tmp_path, key):
    """As one has that was saved before the key was there."""
    document = Config().to_dict()
    section, _, name = key.rpartition(".")
    del (document[section] if section else document)[name]
    assert read_saved(write(tmp_path, yaml.safe_dump(document))) == Config()


def test_a_saved_configuration_keeps_the_slots_it_had(tmp_path):
    config = load("yelp", ["slots.beta_max=0.3"], system="cvae_plus_mi")
    config.save(tmp_path / "config.yaml")
    assert read_saved(tmp_path / "config.yaml").slots == config.slots


def test_override_changes_only_what_is_said():
    config = load("yelp", ["slots.beta_max=0.3"], system="cvae_plus_mi")
    assert override(config) == config
    changed = override(config, ["train.epochs=3"], data_dir="elsewhere")
    assert (changed.train.epochs, changed.data.dir) == (3, "elsewhere")
    assert changed.slots == config.slots
    assert override(config, ["slots.beta_max=null"]).slots.beta_max == 1.0
    assert override(config, system="vae").slots == SYSTEMS["vae"]


OTHER_VALUES = {
    "system": "cvae_plus",
    "precision": "fast",
    "device_target": "CPU",
    "data.dir": "elsewhere",
    "data.unk_alias": "_UNK",
    "data.too_long": "error",
    "train.select": "rec",
    "train.loss_scale": "1024",
}


def another(key: str) -> str:
    """A valid value of a key that is not its value in the default configuration."""
    option, value = OPTIONS[key], flatten(Config())[key]
    if key in OTHER_VALUES:
        return OTHER_VALUES[key]
    if option.type is bool:
        return str(not value).lower()
    if option.choices:
        return str(next(choice for choice in option.choices if choice != value))
    return str(0.25 if option.type is float else (value or 1) + 1)


@pytest.mark.parametrize("key", [key for key in OPTIONS if not key.startswith("slots.")])
def test_the_fingerprint_changes_with_what_decides_a_step_and_with_nothing_else(key):
    # The embedded corpus does not take every unit.
    start = override(Config(), [] if key == "data.dir" else ["data.dir=somewhere"])
    config = override(start, [f"{key}={another(key)}"])
    is_free = key in {"device_target", "device_id", "data.dir"} or key.startswith("eval.")
    is_free |= key in {
        "train.epochs",
        "train.max_steps",
        "train.log_every_steps",
        "train.patience",
        "train.checkpoint_every_steps",
        "train.keep_checkpoints",
        "train.report",
        "train.max_skipped_steps",
        "train.tensorboard",
    }
    assert (config.fingerprint() == start.fingerprint()) == is_free
    changed = configuration.differences(start, config)
    assert (key in changed) == (not is_free)


def test_checkpoints_from_before_there_was_mixed_precision_fit():
    """Nor free bits, nor a weight of the contrast: the defaults compute what was computed then."""
    values = flatten(Config())
    later = ("model.amp_level", "slots.contrast_weight", "slots.free_bits")
    assert [values.pop(key) for key in later] == ["O0", 1.0, 0.0]
    assert values.pop("slots.reconstruction") == "posterior"
    assert values.pop("slots.swap_negatives") is False
    assert (values.pop("data.unit"), values.pop("data.pieces")) == ("word", 8000)
    assert values.pop("data.batches") == "mixed" and not values.pop("model.first_state_bias")
    # It was free, and changes the last bits of a step.
    assert values.pop("model.vocabulary_multiple") is None
    fixed = {key: value for key, value in values.items() if not OPTIONS[key].free}
    digest = hashlib.sha256(json.dumps(fixed, sort_keys=True).encode()).hexdigest()
    assert Config().fingerprint() == digest


def test_the_fingerprint_changes_with_every_slot():
    prints = {Config().fingerprint()}
    for change in (
        ["slots.contrast_on=h"],
        ["slots.temperature=0.1"],
        ["slots.beta=constant"],
        ["slots.critic_loss=dual"],
        ["slots.clipping=together"],
    ):
        prints.add(override(Config(), change).fingerprint())
    assert len(prints) == 6


def test_help_describes_every_key():
    text = config_keys.describe()
    for key in OPTIONS:
        assert f"\n  {key}  (" in "\n" + text
    usable = config_keys.describe(usable_after_training=True)
    assert "eval.samples" in usable and "model.amp_level" in usable
    assert "model.hidden_size" not in usable and "slots." not in usable


def refused_or_loaded(*arguments) -> None:
    try:
        load(*arguments)
    except InputError as error:
        assert str(error) and "\n" not in str(error).strip("\n")


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.dates(),
    st.binary(max_size=5),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*OPTIONS, "train", "slots", "vae", "per_system"]), inner)
    ),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(document=st.dictionaries(st.sampled_from([*OPTIONS, "train", "data", "per_system"]), VALUES))
def test_fuzzed_documents_are_loaded_or_refused(tmp_path_factory, document):
    path = tmp_path_factory.mktemp("fuzz") / "test.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    refused_or_loaded(path)


@settings(max_examples=300, deadline=None)
@given(
    content=st.binary(max_size=80)
    | st.text(max_size=80).map(lambda text: text.encode("utf-8", "replace"))
)
def test_fuzzed_bytes_are_loaded_or_refused(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("fuzz") / "test.yaml"
    path.write_bytes(content)
    refused_or_loaded(path)


@settings(max_examples=500, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(st.sampled_from(list(OPTIONS)) | st.text(max_size=12), st.text(max_size=12))
    )
)
def test_fuzzed_pairs_are_loaded_or_refused(pairs):
    refused_or_loaded(None, [f"{key}={value}" for key, value in pairs])

"""Fine-tunes a classifier with plain Keras: a pretrained model folder and two tables in, a model folder out.

    keras-bert quickstart --out run
    python examples/train_classifier.py run/pretrain run/data/train.jsonl run/data/dev.jsonl my_classifier

The tables have the columns `text` and `label` (.tsv, .csv or .jsonl, also .gz). `keras-bert finetune` adds warm-up, a
restart after an interruption and pairs of texts; this is the script to change for something else.
"""

import sys

import keras
import tensorflow as tf

import keras_bert as kb
from keras_bert.training import tables

EPOCHS, BATCH_SIZE, LEARNING_RATE = 3, 16, 1e-3  # the rate of a tiny model; BERT-base takes 2e-5 to 5e-5


def make_dataset(table, labels, preprocessor, shuffle=False):
    dataset = tf.data.Dataset.from_tensor_slices((table["text"], tables.encode_labels(table, labels)))
    if shuffle:
        dataset = dataset.shuffle(len(table), seed=0)
    dataset = dataset.batch(BATCH_SIZE).map(lambda text, label: (preprocessor(text), label))
    return dataset.prefetch(tf.data.AUTOTUNE)


def main(checkpoint, train_file, dev_file, out):
    keras.utils.set_random_seed(0)
    pretrained = kb.load_model_folder(checkpoint)
    train, dev = tables.read_table(train_file), tables.read_table(dev_file)
    labels = tables.label_names(train)

    encoder = kb.encoder_of(pretrained.model)
    preprocessor = kb.Preprocessor(pretrained.tokenizer, max_length=64)
    model = kb.build_classifier(encoder, num_classes=len(labels))
    model.compile(
        optimizer=keras.optimizers.AdamW(LEARNING_RATE, weight_decay=0.01),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(
        make_dataset(train, labels, preprocessor, shuffle=True),
        validation_data=make_dataset(dev, labels, preprocessor),
        epochs=EPOCHS,
    )
    kb.save_model_folder(kb.ModelFolder(model, pretrained.tokenizer, "classifier", 64, labels), out)
    print(f"saved in {out}; next: keras-bert predict --checkpoint {out}")


if __name__ == "__main__":
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    main(*sys.argv[1:])

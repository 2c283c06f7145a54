"""A function that streams, at the root and under a prefix."""

import os
import time

import gradio


def count(text):
    for number in range(3):
        yield f"{text} {number}"
        time.sleep(0.1)


demo = gradio.Interface(count, "text", "text", api_name="count")
demo.launch(server_name="127.0.0.1", server_port=int(os.environ["PORT"]), root_path=os.environ.get("ROOT_PATH") or None)

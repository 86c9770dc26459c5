"use strict";
// The page's texts, in the browser's language. {name} is filled in.
const TEXTS = {
  en: {
    model: "Model", dropTitle: "Drop pictures here", dropText: "or paste one, or choose:", choose: "Pictures",
    folder: "Folder", camera: "Camera", show: "Show", order: "Order", orderAdded: "as added",
    orderDown: "most certain first", orderUp: "least certain first", orderName: "by name", csv: "Save as CSV",
    clear: "Clear", close: "Close", heat: "Show where it looks", heatOff: "Show the picture",
    correctTitle: "What is it really?", newLabel: "Another label", keep: "Keep", docs: "Interface for programs",
    shoot: "Take the picture", pick: "Use the camera app", tokenTitle: "This server asks for a token", token: "Token", ok: "OK",
    all: "all ({count})", unknown: "unknown", failed: "not readable", corrected: "corrected",
    waiting: "{done} of {all} pictures answered", done: "{count} pictures answered in {seconds} s",
    answer: "{label}, {score}", answerUnknown: "unknown: unlike all pictures that it was trained on",
    took: "answered in {ms} ms", labelSet: "In 90 % of cases the right label is one of: {labels}",
    about: "{classes} classes, {network}", accuracy: ", {top1} right in validation",
    keeps: "Press a number or choose a label. The picture and its label are kept on the server, to train on.",
    keepsNot: "This server keeps nothing. Start it with --collect FOLDER to keep corrections.",
    privacyKept: "Pictures are sent to this server only. It keeps those that you correct, no others.",
    privacy: "Pictures are sent to this server only, and it keeps none of them.",
    kept: "Kept as {label}; pictures kept: {count}.", keptNew: "Kept as {label}, a new class: add it to labels.txt before training; pictures kept: {count}.",
    insecure: "A browser gives a page its camera only over https or on this computer itself (localhost). You can take a picture with the camera app instead.",
    noCamera: "No camera can be used: {reason}", noPictures: "There are no pictures in it.",
    tooLarge: "larger than {mb} MB", offline: "the server does not answer", other: "中文",
    heading: "Answer for {name}", current: "{name}: {answer}",
  },
  zh: {
    model: "模型", dropTitle: "把图片拖到这里", dropText: "也可以粘贴图片，或者选择：", choose: "图片",
    folder: "文件夹", camera: "摄像头", show: "显示", order: "排序", orderAdded: "按添加顺序",
    orderDown: "把握大的在前", orderUp: "把握小的在前", orderName: "按文件名", csv: "保存为 CSV",
    clear: "清空", close: "关闭", heat: "显示判断依据", heatOff: "显示原图",
    correctTitle: "正确的类别是什么？", newLabel: "其他类别", keep: "保存", docs: "程序接口",
    shoot: "拍照", pick: "使用相机应用", tokenTitle: "此服务需要令牌", token: "令牌", ok: "确定",
    all: "全部（{count}）", unknown: "未知", failed: "无法读取", corrected: "已更正",
    waiting: "已回答 {done} / {all} 张", done: "{count} 张图片已回答，用时 {seconds} 秒",
    answer: "{label}，{score}", answerUnknown: "未知：与训练过的图片都不像",
    took: "用时 {ms} 毫秒", labelSet: "在 90 % 的情况下，正确类别在其中：{labels}",
    about: "{classes} 个类别，{network}", accuracy: "，验证集准确率 {top1}",
    keeps: "按数字键或点选类别。图片和类别会保存在服务器上，用于以后训练。",
    keepsNot: "此服务不保存任何内容。要保存更正，请用 --collect 文件夹 启动服务。",
    privacyKept: "图片只发送到这台服务器。服务器只保存您更正过的图片。",
    privacy: "图片只发送到这台服务器，服务器不保存任何图片。",
    kept: "已保存为 {label}，共保存 {count} 张。", keptNew: "已保存为新类别 {label}，训练前请把它加入 labels.txt。共保存 {count} 张。",
    insecure: "浏览器只在 https 页面或本机（localhost）上允许网页使用摄像头。您可以改用相机应用拍照。",
    noCamera: "无法使用摄像头：{reason}", noPictures: "其中没有图片。",
    tooLarge: "超过 {mb} MB", offline: "服务器没有响应", other: "English",
    heading: "{name} 的结果", current: "{name}：{answer}",
  },
};
let language = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";

function text(name, values = {}) {
  return TEXTS[language][name].replace(/\{(\w+)\}/g, (whole, key) => (key in values ? String(values[key]) : whole));
}

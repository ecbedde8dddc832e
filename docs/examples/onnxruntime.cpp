// An exported file in ONNX Runtime's C++ interface.
//
//     g++ -std=c++17 -I INCLUDE onnxruntime.cpp -L LIB -lonnxruntime -o run
//     ./run yolov8n_int8.onnx images.raw output.raw
//
// INCLUDE and LIB are folders of ONNX Runtime's release archive. images.raw holds float32 numbers in 0..1, RGB planes
// (N, 3, H, W), as many as the file takes; output.raw becomes the float32 numbers of output0.

#include <cstdint>
#include <fstream>
#include <functional>
#include <iostream>
#include <numeric>
#include <vector>

#include <onnxruntime_cxx_api.h>

static int64_t count(const std::vector<int64_t>& shape) {
    return std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<int64_t>());
}

int main(int argc, char** argv) try {
    if (argc != 4) throw std::invalid_argument("usage: run MODEL.onnx IMAGES.raw OUTPUT.raw");

    Ort::Env env(ORT_LOGGING_LEVEL_WARNING);
    Ort::SessionOptions options;
    options.SetIntraOpNumThreads(1);
    Ort::Session session(env, argv[1], options);

    const auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();
    std::vector<float> images(static_cast<size_t>(count(shape)));
    std::ifstream source(argv[2], std::ios::binary);
    if (!source.read(reinterpret_cast<char*>(images.data()), images.size() * sizeof(float)))
        throw std::runtime_error("too few numbers in the images");

    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    const auto input = Ort::Value::CreateTensor<float>(memory, images.data(), images.size(), shape.data(), shape.size());
    const char* inputs[] = {"images"};
    const char* outputs[] = {"output0"};
    auto found = session.Run(Ort::RunOptions{}, inputs, &input, 1, outputs, 1);

    const auto made = found[0].GetTensorTypeAndShapeInfo().GetShape();
    std::ofstream(argv[3], std::ios::binary)
        .write(reinterpret_cast<const char*>(found[0].GetTensorData<float>()), count(made) * sizeof(float));
    return 0;
} catch (const std::exception& error) {
    std::cerr << error.what() << std::endl;
    return 1;
}
